"""Typed outputs: what an app returned, checked against what the caller asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fal_async._checks import describe, explain
from fal_async.errors import InvalidReplyError, InvalidRequestError
from fal_async.types import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = [
    "check_output_type",
    "validate_output",
]

T = TypeVar("T")


def validate_output(value: Any, output: type[T] | None) -> T:
    """Check a model's output against any type that pydantic knows; ``None`` takes it as it is."""
    if output is None:
        return cast("T", value)
    from pydantic import ValidationError  # costs 0.1 s to import, so only those pay who use it

    try:
        return cast("T", _validator(output)(value))
    except ValidationError as error:
        raise InvalidReplyError(
            f"the output is not a {getattr(output, '__name__', output)}: {error}",
            request_id=getattr(value, "request_id", None),
            body=value,
        ) from error


def check_output_type(output: object) -> None:
    """Refuse what outputs cannot be checked against, before the job is paid for."""
    if output is not None:
        _validator(output)


def _validator(output: object) -> Callable[[object], object]:
    try:
        hash(output)
    except Exception:  # noqa: BLE001 -- whatever has no hash
        build = _build_validator.__wrapped__  # annotations may carry lists and the like
    else:
        build = _build_validator
    try:
        return build(output)
    except Exception as error:  # pydantic's own are few of what it raises for what is no type
        raise InvalidRequestError(
            f"{describe(output)} is not a type of outputs: {explain(error)}"
        ) from error


@lru_cache(maxsize=256)
def _build_validator(output: Hashable) -> Callable[[object], object]:
    from pydantic import InstanceOf, TypeAdapter

    kind = cast("type[object]", output)
    if isinstance(output, type) and issubclass(kind, Result):
        kind = InstanceOf[Result]
    adapter = TypeAdapter[object](kind)
    adapter.rebuild(raise_errors=True)
    return adapter.validate_python
