"""Encoding and decoding of JSON and msgpack.

Values are encoded and decoded without loss, or the functions raise an error. The JSON is that of
Python's `json`, which the apps of the platform use: integers of any size, NaN, infinities, lone
surrogates and byte order marks. orjson is used where its output is the same, and `json` otherwise.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial, singledispatch
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import orjson

from fal_async.errors import InvalidRequestError, InvalidResponseError
from fal_async.types import ExtType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fal_async.types import Arguments

__all__ = [
    "FileReference",
    "arguments_to_json",
    "decode_json",
    "decode_msgpack",
    "encode_arguments",
    "encode_json",
    "encode_msgpack",
    "json_text",
    "object_or_empty",
]

_DIGITS_TO_0: Final = bytes.maketrans(b"123456789", b"000000000")
#: The length of the shortest integers that orjson rounds.
_MANY_DIGITS: Final = b"0" * 19
#: An integer that orjson may round. A match within a string costs time, but changes no value.
_LARGE_INTEGER: Final = re.compile(rb"-[0-9]{19}|[0-9]{20}")
#: The types of scalars that orjson decodes exactly.
_EXACT_TYPES: Final = frozenset({str, int, bool, type(None)})

_FOR_BYTES: Final = (
    "; upload it with Upload(data, content_type), or make a data URL with "
    "encode(data, content_type)"
)

#: The largest msgpack message that is copied to check its end, in bytes.
_MAX_COPIED: Final = 65536
#: An array of two values, whose second value is the end mark.
_PAIR: Final = b"\x92"
_END_MARK: Final = "end of message"
_PACKED_END_MARK: Final = bytes((0xA0 | len(_END_MARK),)) + _END_MARK.encode()

_TIMESTAMP: Final = -1  # the code of msgpack's predefined extension type
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class FileReference:
    """A file that has a URL; in arguments, it is sent as its URL."""

    if TYPE_CHECKING:
        url: str


def decode_json(body: bytes | str) -> Any:
    """Decode JSON with the result of `json.loads`.

    Raises:
        ValueError: The text is not JSON, or is nested too deeply.
    """
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _decode_exactly(body)
    # orjson decodes large integers as floats. A flat object without a float, such as most events,
    # contains none. The search for them in other bodies takes 0.2 us, and 0.7 us per kilobyte.
    if value.__class__ is dict:  # which, unlike `type`, leaves its type open to checkers
        for item in value.values():
            if type(item) not in _EXACT_TYPES:
                break
        else:
            return value
    # The operator `in` would take 0.3 us more, since it also accepts integers.
    if body.translate(_DIGITS_TO_0).find(_MANY_DIGITS) >= 0 and _LARGE_INTEGER.search(body):
        return _decode_exactly(body)
    return value


def _decode_exactly(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def encode_json(value: object, *, indent: bool = False) -> bytes:
    """Encode a value as JSON, from which `decode_json` restores it.

    Args:
        value: A JSON value, or any value that arguments may contain.
        indent: Whether to write each item on its own line, indented by two spaces per level.

    Raises:
        TypeError: JSON has no representation of a value.
        ValueError: The value contains itself, or is nested too deeply.
    """
    try:
        body = orjson.dumps(value, _plain_json, orjson.OPT_INDENT_2 if indent else None)
    except TypeError:  # the base class of the errors of orjson
        return _encode_exactly(value, indent=indent)
    if b"null" in body and _find_invalid(value) is not None:  # orjson encodes NaN as null
        return _encode_exactly(value, indent=indent)
    return body


def _encode_exactly(value: object, *, indent: bool = False) -> bytes:
    try:
        text = json.dumps(
            value,
            default=_plain_json,
            ensure_ascii=False,
            indent=2 if indent else None,
            separators=None if indent else (",", ":"),
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return text.encode("utf-8", "backslashreplace")  # the escapes of surrogates are valid JSON


def json_text(value: object) -> str:
    """Return a string unchanged, and any other value as JSON, for messages."""
    if isinstance(value, str):
        return value
    try:
        return encode_json(value).decode()
    except (TypeError, ValueError, RecursionError):
        return f"a value of type {type(value).__name__}"


def object_or_empty(value: object) -> dict[str, Any]:
    """Return a JSON object unchanged, and an empty one for any other value."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def encode_arguments(arguments: Arguments) -> bytes:
    """Encode arguments as a JSON object. Pydantic models are dumped by their aliases.

    Raises:
        InvalidRequestError: The arguments are not a mapping or a model, or contain a value that has
            no representation in JSON. The error names its location.
    """
    try:
        body = orjson.dumps(arguments, _plain_json)
    except TypeError:  # a value that orjson cannot encode, perhaps no other encoder either
        _check_encodable(arguments)
        try:
            body = _encode_exactly(arguments)
            json.loads(body, object_pairs_hook=_unique_keys)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(f"cannot encode the arguments as JSON: {error}") from error
    if not body.startswith(b"{"):
        raise _not_arguments(arguments)
    if body.find(b"null") >= 0:  # orjson encodes NaN as null
        _check_encodable(arguments)
    return body


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object. Keys that differ in Python, such as 1 and "1", may be equal in JSON."""
    distinct = dict(pairs)
    if len(distinct) < len(pairs):
        raise ValueError(f"two of the keys {[key for key, _ in pairs]} have the same text")
    return distinct


def arguments_to_json(arguments: Arguments) -> dict[str, Any]:
    """Return the arguments as JSON values, as the app receives them."""
    return cast("dict[str, Any]", decode_json(encode_arguments(arguments)))


def _not_arguments(arguments: object) -> InvalidRequestError:
    return InvalidRequestError(
        f"arguments must be a mapping or a pydantic model, got {type(arguments).__name__}"
    )


def _check_encodable(arguments: object) -> None:
    try:
        fault = _find_invalid(arguments)
    except RecursionError as error:
        raise InvalidRequestError(
            "cannot encode the arguments as JSON: they are nested too deeply, or contain themselves"
        ) from error
    if fault is not None:
        where, reason, cause = fault
        raise InvalidRequestError(
            f"cannot encode the arguments as JSON: {reason} at {where or 'the top'}"
        ) from cause


def _find_invalid(value: object) -> tuple[str, str, Exception | None] | None:
    """Find a value that standard JSON cannot represent.

    Returns:
        Its location, the reason, and the exception, if any; ``None`` if there is no such value.
    """
    if isinstance(value, float):
        return None if math.isfinite(value) else ("", f"JSON cannot represent {value}", None)
    if value is None or isinstance(value, str | int):
        return None
    if not isinstance(value, Mapping | list | tuple):
        try:
            plain = _plain_json(value)
        except Exception as error:  # noqa: BLE001 -- a method of the caller's object
            return "", str(error), error
        return _find_invalid(plain)
    container = cast("Mapping[object, object] | Sequence[object]", value)
    items = container.items() if isinstance(container, Mapping) else enumerate(container)
    for key, item in items:
        if not isinstance(key, str | int | float | None):
            return f"[{key!r}]", f"JSON cannot have keys of type {type(key).__name__}", None
        if (fault := _find_invalid(item)) is not None:
            where, reason, cause = fault
            return f"[{key!r}]{where}", reason, cause
    return None


def _plain_json(value: object) -> object:
    """Convert a value of a type that the encoders do not support, such as a pydantic model."""
    if isinstance(value, FileReference):
        return value.url
    dump: Callable[..., object] | None = getattr(value, "model_dump", None)
    return _json_default(value, "JSON") if dump is None else dump(mode="json", by_alias=True)


def _json_default(value: object, form: str) -> object:
    plain = _convert(value)
    if type(plain) is type(value):
        kind = type(value).__name__
        remedy = _FOR_BYTES if kind in {"bytes", "bytearray", "memoryview"} else ""
        raise TypeError(f"{form} has no type for {kind}{remedy}")
    return plain


@singledispatch
def _convert(value: object) -> object:
    """Return an equivalent value of a type that `json` supports; without one, the same value."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in fields(value) if not each.name.startswith("_")]
        return {name: getattr(value, name) for name in names}  # like orjson
    if getattr(value, "shape", None) == () and hasattr(value, "tolist"):  # a scalar of NumPy
        return cast("Any", value).tolist()
    return value


@_convert.register(Mapping)
def _convert_mapping(value: Mapping[object, object]) -> object:
    return dict(value)


@_convert.register
def _convert_tuple(value: tuple) -> object:  # type: ignore[type-arg] # read at run time
    return tuple(cast("tuple[object, ...]", value))


@_convert.register
def _convert_float(value: float) -> object:
    return float(value)


@_convert.register
def _convert_enum(value: Enum) -> object:
    return value.value


@_convert.register
def _convert_uuid(value: UUID) -> object:
    return str(value)


@_convert.register(dt.date)
@_convert.register(dt.time)
def _convert_moment(value: dt.date | dt.time) -> object:
    return value.isoformat()


def decode_msgpack(message: bytes | memoryview) -> Any:
    """Decode a msgpack message. Byte strings become `bytes`.

    Timestamps become aware `datetime` objects if these are precise enough. Other timestamps and
    extensions become `ExtType`.

    Raises:
        InvalidResponseError: The message is not exactly one msgpack value. The body of the error is
            the message.
    """
    ormsgpack = _ormsgpack()
    # ormsgpack ignores bytes after the value. So a message is decoded with a mark at its end, which
    # must be the next value. This takes half as long as the check below, which copies nothing.
    if len(message) <= _MAX_COPIED:
        try:
            value, next_value = ormsgpack.unpackb(
                b"".join((_PAIR, message, _PACKED_END_MARK)),
                ext_hook=_read_extension,
                option=ormsgpack.OPT_NON_STR_KEYS,
            )
        except (ValueError, TypeError):
            pass  # raised again below, with the right reason
        else:
            if next_value == _END_MARK:
                return value
    options = ormsgpack.OPT_NON_STR_KEYS
    unpack = partial(ormsgpack.unpackb, ext_hook=_read_extension, option=options)
    try:
        # If the value is complete without the last byte, that byte follows the value.
        unpack(memoryview(message)[:-1])
    except (ValueError, TypeError):
        try:
            return unpack(message)
        except (ValueError, TypeError) as error:
            raise _not_msgpack(message, str(error)) from error
    raise _not_msgpack(message, "it contains more than one value")


def _not_msgpack(message: bytes | memoryview, reason: str) -> InvalidResponseError:
    return InvalidResponseError(
        f"a message of {len(message)} bytes is not msgpack: {reason}", body=bytes(message)
    )


def _read_extension(code: int, data: bytes) -> dt.datetime | ExtType:
    """Decode an extension: a timestamp, if `datetime` can represent it."""
    extension = ExtType(code, data)
    match len(data) if code == _TIMESTAMP else None:
        case 4:
            seconds, nanoseconds = int.from_bytes(data), 0
        case 8:
            nanoseconds, seconds = divmod(int.from_bytes(data), 1 << 34)
        case 12:
            nanoseconds = int.from_bytes(data[:4])
            seconds = int.from_bytes(data[4:], signed=True)
        case _:
            return extension
    microseconds, rest = divmod(nanoseconds, 1000)
    try:
        moment = _EPOCH + dt.timedelta(seconds=seconds, microseconds=microseconds)
    except OverflowError:
        return extension
    return extension if rest or microseconds > 999_999 else moment


def encode_msgpack(arguments: object) -> bytes:
    """Encode arguments as a msgpack map. Pydantic models are dumped by their aliases.

    Raises:
        InvalidRequestError: The arguments are not a mapping or a model, or contain a value that has
            no representation in msgpack.
    """
    ormsgpack = _ormsgpack()
    try:
        packed: bytes = ormsgpack.packb(arguments, _plain_msgpack, ormsgpack.OPT_NON_STR_KEYS)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"cannot encode the arguments as msgpack: {error.__cause__ or error}"
        ) from error
    if packed[0] & 0xF0 != 0x80 and packed[0] not in {0xDE, 0xDF}:
        raise _not_arguments(arguments)
    return packed


def _plain_msgpack(value: object) -> object:
    if isinstance(value, FileReference):
        return value.url
    dump: Callable[..., object] | None = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(by_alias=True)
    if getattr(value, "_fields", None) == ExtType._fields:
        return _ormsgpack().Ext(*cast("ExtType", value))  # also for `msgpack.ExtType`
    return _json_default(value, "msgpack")


@cache
def _ormsgpack() -> Any:
    import ormsgpack  # only realtime sessions need it

    return ormsgpack
