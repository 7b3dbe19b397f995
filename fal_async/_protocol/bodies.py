"""JSON bodies out, and typed outputs in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import orjson

from fal_async.errors import InvalidReplyError, InvalidRequestError
from fal_async.types import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from fal_async.types import Arguments

__all__ = [
    "check_output_type",
    "decode_json",
    "encode_arguments",
    "plain_arguments",
    "validate_output",
]

T = TypeVar("T")


def plain_arguments(arguments: Arguments) -> dict[str, Any]:
    """The arguments as JSON values: what the app will read."""
    return cast("dict[str, Any]", orjson.loads(encode_arguments(arguments)))


def encode_arguments(arguments: Arguments) -> bytes:
    """The arguments as a JSON object; pydantic models are dumped by their aliases."""
    try:
        body = orjson.dumps(arguments, default=_plain)
    except TypeError as error:  # orjson's encode error is one
        raise InvalidRequestError(
            f"the arguments cannot be written as JSON: {error.__cause__ or error}"
        ) from error
    if not body.startswith(b"{"):
        raise InvalidRequestError(
            f"arguments must be a mapping or a pydantic model, got {type(arguments).__name__}"
        )
    if b"null" in body and (where := _not_finite(arguments)) is not None:
        raise InvalidRequestError(f"JSON has no word for the number at {where or 'the top'}")
    return body


def _not_finite(value: object) -> str | None:
    """Where a number is that orjson writes as null: NaN or an infinity; ``None`` for nowhere."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    for key, item in _items_of(value):
        if (where := _not_finite(item)) is not None:
            return f"[{key!r}]{where}"
    return None


def _items_of(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).items()
    if isinstance(value, list | tuple):
        return enumerate(cast("list[object]", value))
    if is_dataclass(value) and not isinstance(value, type):
        return [(each.name, getattr(value, each.name)) for each in fields(value)]
    dump: Callable[..., Mapping[str, object]] | None = getattr(value, "model_dump", None)
    return () if dump is None else dump(mode="json", by_alias=True).items()


def _plain(value: object) -> object:
    """What orjson does not know: models, and mappings that are no dictionaries."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    dump: Callable[..., object] | None = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} is no type of JSON")
    return dump(mode="json", by_alias=True)


def decode_json(body: bytes) -> Any:
    """Read JSON as Python's own decoder does, or raise `ValueError`.

    Apps write NaN, byte order marks and lone surrogates; an output that was paid for is not lost
    for being more than the standard allows.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body)
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error


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
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    try:
        hash(output)
    except TypeError:
        build = _build_validator.__wrapped__  # annotations may carry lists and the like
    else:
        build = _build_validator
    try:
        return build(output)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise InvalidRequestError(f"{output!r} is not a type of outputs: {error}") from error


@lru_cache(maxsize=256)
def _build_validator(output: Hashable) -> Callable[[object], object]:
    from pydantic import InstanceOf, TypeAdapter

    kind = cast("type[object]", output)
    if isinstance(output, type) and issubclass(kind, Result):
        kind = InstanceOf[Result]
    adapter = TypeAdapter[object](kind)
    adapter.rebuild(raise_errors=True)
    return adapter.validate_python
