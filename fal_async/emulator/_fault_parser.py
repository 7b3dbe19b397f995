"""Faults as text and as JSON, for the command line and for other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from fal_async.emulator._faults import Fault
from fal_async.emulator._json import decode
from fal_async.emulator._recorder import Route  # noqa: TC001 - pydantic resolves the annotation
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["parse_fault", "parse_fault_text"]


class _Fields(BaseModel):
    """The attributes of a fault that have a JSON form."""

    model_config = ConfigDict(extra="forbid")

    endpoint_id: str | None = None
    route: Route | None = None
    status: int | None = None
    headers: dict[str, str | None] = {}
    body: JsonValue = None
    delay: float | None = None
    delay_response: float | None = None
    cut: int | None = None
    drop: bool = False
    drop_response: bool = False
    duplicate: bool = False
    reset: bool = False
    close: int | None = None
    message: str | None = None
    stall: bool = False
    after: int = 0
    times: int | None = 1
    skip: int = 0
    share: float | None = None
    seed: int = 0


def parse_fault(fields: Mapping[str, object]) -> tuple[str | None, Fault]:
    """Return the endpoint id, ``None`` for all endpoints, and the fault that JSON describes.

    Raises:
        InvalidRequestError: A name is unknown, or a value is invalid.
    """
    try:
        parsed = _Fields.model_validate(fields)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        raise InvalidRequestError(f"cannot parse the fault: {name}: {problem['msg']}") from error
    attributes = dict(parsed)
    return attributes.pop("endpoint_id"), Fault(**attributes)


def parse_fault_text(text: str) -> tuple[str | None, Fault]:
    """Return the endpoint id and the fault that text describes.

    Args:
        text: A JSON object, or attributes such as ``route=submit,status=503,share=0.2,drop``.

    Raises:
        InvalidRequestError: A name is unknown, or a value is invalid.

    Example:
        >>> endpoint_id, fault = parse_fault_text("endpoint_id=acme/app,status=503,times=2")
        >>> endpoint_id, fault.status, fault.times
        ('acme/app', 503, 2)
    """
    fields: dict[str, object] = {}
    if text.lstrip().startswith("{"):
        try:
            fields = decode(text)
        except ValueError as error:
            raise InvalidRequestError(f"cannot parse the fault: {error}") from error
    else:
        for item in text.split(","):
            name, equals, value = item.strip().partition("=")
            try:
                fields[name] = decode(value) if equals else True
            except ValueError:
                fields[name] = value
    return parse_fault(fields)
