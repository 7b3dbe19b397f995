"""JSON bodies out, and typed outputs in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import orjson

from fal_async.errors import InvalidReplyError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from fal_async.types import Arguments

__all__ = ["encode_arguments", "plain_arguments", "validate_output"]

T = TypeVar("T")


def plain_arguments(arguments: Arguments) -> Mapping[str, Any]:
    """The arguments as a mapping of JSON values; a pydantic model is dumped by its aliases."""
    if isinstance(arguments, Mapping):
        return arguments
    dump = getattr(arguments, "model_dump", None)
    if dump is None:
        raise InvalidRequestError(
            f"arguments must be a mapping or a pydantic model, got {type(arguments).__name__}"
        )
    return cast("Mapping[str, Any]", dump(mode="json", by_alias=True))


def encode_arguments(arguments: Arguments) -> bytes:
    """The arguments as JSON."""
    try:
        return orjson.dumps(plain_arguments(arguments))
    except TypeError as error:  # orjson's encode error is one
        raise InvalidRequestError(f"the arguments cannot be written as JSON: {error}") from error


def validate_output(value: Any, output: type[T] | None) -> T:
    """Check a model's output against any type that pydantic knows; ``None`` takes it as it is."""
    if output is None:
        return cast("T", value)
    from pydantic import ValidationError  # costs 0.1 s to import, so only those pay who use it

    try:
        return cast("T", _adapter(cast("Hashable", output))(value))
    except ValidationError as error:
        raise InvalidReplyError(
            f"the output is not a {getattr(output, '__name__', output)}: {error}",
            request_id=getattr(value, "request_id", None),
        ) from error


@lru_cache(maxsize=256)
def _adapter(output: Hashable) -> Callable[[object], object]:
    from pydantic import TypeAdapter

    return TypeAdapter[object](cast("type[object]", output)).validate_python
