"""JSON and msgpack: the values of Python to bytes, and back.

Both directions are exact, or an error. JSON is that of Python's own `json`, which the apps of the
platform use: integers of any size, NaN and infinities, halves of surrogate pairs, byte order marks.
orjson does the work wherever it does the same; `json` does the rest.
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
    from collections.abc import Callable, Iterable, Sequence

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
]

_DIGITS_TO_0: Final = bytes.maketrans(b"123456789", b"000000000")
#: The smallest integer that orjson rounds has this many digits.
_MANY_DIGITS: Final = b"0" * 19
#: An integer that may be one of those; within a string it costs time and does no harm.
_LARGE_INTEGER: Final = re.compile(rb"-[0-9]{19}|[0-9]{20}")

_FOR_BYTES: Final = (
    "; upload it with Upload(data, content_type), or make a data URL of it with "
    "encode(data, content_type)"
)

_TIMESTAMP: Final = -1  # the code of msgpack's own extension type
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class FileReference:
    """A file that has a URL; in arguments, it is sent as its URL."""

    if TYPE_CHECKING:
        url: str


def decode_json(body: bytes | str) -> Any:
    """Read JSON as Python's own decoder does.

    Raises:
        ValueError: It is not JSON, or is nested more deeply than Python can read.
    """
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _decode_exactly(body)
    # orjson makes floats of large integers. The look for one costs 0.2 us, and 0.7 us a kilobyte;
    # `in` costs another 0.3 us, for it tries the bytes as a number first.
    if body.translate(_DIGITS_TO_0).find(_MANY_DIGITS) >= 0 and _LARGE_INTEGER.search(body):
        return _decode_exactly(body)
    return value


def _decode_exactly(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def encode_json(value: object, *, indent: bool = False) -> bytes:
    """Write a value as JSON that `decode_json` reads back as it was.

    Args:
        value: What `decode_json` returns, or what arguments may hold.
        indent: Whether each item has a line of its own, with an indent of two spaces a level.

    Raises:
        TypeError: There is no JSON for it.
        ValueError: It holds itself, or is nested more deeply than Python can write.
    """
    try:
        body = orjson.dumps(value, _plain_json, orjson.OPT_INDENT_2 if indent else None)
    except TypeError:  # orjson's encode error is one
        return _encode_exactly(value, indent=indent)
    if b"null" in body and _find_unencodable(value) is not None:  # it writes null for NaN
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
    return text.encode("utf-8", "backslashreplace")  # which writes surrogates as JSON does


def json_text(value: object) -> str:
    """Return a string as it is, and the JSON of anything else, for people to read."""
    if isinstance(value, str):
        return value
    try:
        return encode_json(value).decode()
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"


def encode_arguments(arguments: Arguments) -> bytes:
    """Write arguments as a JSON object; pydantic models are dumped by their aliases.

    Raises:
        InvalidRequestError: They are no mapping or model, or hold something that has no JSON; the
            error says where.
    """
    try:
        body = orjson.dumps(arguments, _plain_json)
    except TypeError:
        body = _encode_other_arguments(arguments)
    if not body.startswith(b"{"):
        raise _not_arguments(arguments)
    if b"null" in body:  # orjson writes it for NaN, too
        _check_encodable(arguments)
    return body


def _encode_other_arguments(arguments: object) -> bytes:
    """Write what orjson does not, or say what is wrong with it."""
    _check_encodable(arguments)
    try:
        body = _encode_exactly(arguments)
        json.loads(body, object_pairs_hook=_unique_keys)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the arguments cannot be written as JSON: {error}") from error
    return body


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; keys that differ in Python, such as 1 and "1", may not in JSON."""
    distinct = dict(pairs)
    if len(distinct) < len(pairs):
        raise ValueError(f"two of the keys {[key for key, _ in pairs]} are the same text")
    return distinct


def arguments_to_json(arguments: Arguments) -> dict[str, Any]:
    """Return the arguments as JSON values: what the app will read."""
    return cast("dict[str, Any]", decode_json(encode_arguments(arguments)))


def _not_arguments(arguments: object) -> InvalidRequestError:
    return InvalidRequestError(
        f"arguments must be a mapping or a pydantic model, got {type(arguments).__name__}"
    )


def _check_encodable(arguments: object) -> None:
    try:
        fault = _find_unencodable(arguments)
    except RecursionError as error:
        raise InvalidRequestError(
            "the arguments cannot be written as JSON: nested too deeply, or within themselves"
        ) from error
    if fault is not None:
        where, reason, cause = fault
        raise InvalidRequestError(
            f"the arguments cannot be written as JSON: {reason} at {where or 'the top'}"
        ) from cause


def _find_unencodable(value: object) -> tuple[str, str, Exception | None] | None:
    """Find what no standard JSON can express: its place, the reason, and what was raised."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ("", "JSON has no word for the number", None)
    if value is None or isinstance(value, str | int):
        return None
    if not isinstance(value, Mapping | list | tuple):
        try:
            plain = _plain_json(value)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
            return "", str(error), error
        return _find_unencodable(plain)
    for key, item in _items_of(cast("Mapping[object, object] | Sequence[object]", value)):
        if not isinstance(key, str | int | float | None):
            return f"[{key!r}]", f"{type(key).__name__} is no type of keys in JSON", None
        if (fault := _find_unencodable(item)) is not None:
            where, reason, cause = fault
            return f"[{key!r}]{where}", reason, cause
    return None


def _items_of(
    value: Mapping[object, object] | Sequence[object],
) -> Iterable[tuple[object, object]]:
    return value.items() if isinstance(value, Mapping) else enumerate(value)


def _plain_json(value: object) -> object:
    """Make what the encoders do not know from what they know: pydantic models, for one."""
    if isinstance(value, FileReference):
        return value.url
    dump: Callable[..., object] | None = getattr(value, "model_dump", None)
    return _json_default(value, "JSON") if dump is None else dump(mode="json", by_alias=True)


def _json_default(value: object, form: str) -> object:
    plain = _convert(value)
    if type(plain) is type(value):
        kind = type(value).__name__
        remedy = _FOR_BYTES if kind in {"bytes", "bytearray", "memoryview"} else ""
        raise TypeError(f"{kind} is no type of {form}{remedy}")
    return plain


@singledispatch
def _convert(value: object) -> object:
    """Return a value of a type that `json` knows, if there is one that says the same."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in fields(value) if not each.name.startswith("_")]
        return {name: getattr(value, name) for name in names}  # as orjson has it
    if getattr(value, "shape", None) == () and hasattr(value, "tolist"):  # a number of NumPy
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


def decode_msgpack(message: bytes | bytearray) -> Any:
    """Read a msgpack message, whose byte strings stay bytes.

    Timestamps are aware `datetime` objects where these are as precise; they and all other
    extensions are `ExtType` otherwise.

    Raises:
        InvalidResponseError: It is not one msgpack value, and no more; with the message as its
            body.
    """
    unpack = _unpacker()
    try:
        # A value that can do without the last byte has something after it, which is never read.
        unpack(memoryview(message)[:-1])
    except (ValueError, TypeError):
        try:
            return unpack(message)
        except (ValueError, TypeError) as error:
            raise _not_msgpack(message, str(error)) from error
    raise _not_msgpack(message, "it holds more than one value")


def _not_msgpack(message: bytes | bytearray, reason: str) -> InvalidResponseError:
    return InvalidResponseError(
        f"a message of {len(message)} bytes is not msgpack: {reason}", body=bytes(message)
    )


@cache
def _unpacker() -> Callable[[bytes | bytearray | memoryview], Any]:
    ormsgpack = _ormsgpack()
    options = ormsgpack.OPT_NON_STR_KEYS
    return partial(ormsgpack.unpackb, ext_hook=_read_extension, option=options)


def _read_extension(code: int, data: bytes) -> object:
    moment = _read_timestamp(data) if code == _TIMESTAMP else None
    return ExtType(code, data) if moment is None else moment


def _read_timestamp(data: bytes) -> dt.datetime | None:
    """Read a moment; ``None`` where `datetime` cannot express it."""
    match len(data):
        case 4:
            seconds, nanoseconds = int.from_bytes(data), 0
        case 8:
            nanoseconds, seconds = divmod(int.from_bytes(data), 1 << 34)
        case 12:
            nanoseconds = int.from_bytes(data[:4])
            seconds = int.from_bytes(data[4:], signed=True)
        case _:
            return None
    microseconds, rest = divmod(nanoseconds, 1000)
    try:
        moment = _EPOCH + dt.timedelta(seconds=seconds, microseconds=microseconds)
    except OverflowError:
        return None
    return None if rest or microseconds > 999_999 else moment


def encode_msgpack(arguments: object) -> bytes:
    """Write arguments as a msgpack map: bytes stay bytes, models are dumped by their aliases.

    Raises:
        InvalidRequestError: They are no mapping or model, or hold what msgpack cannot say.
    """
    ormsgpack = _ormsgpack()
    try:
        packed: bytes = ormsgpack.packb(
            arguments, default=_plain_msgpack, option=ormsgpack.OPT_NON_STR_KEYS
        )
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"the arguments cannot be written as msgpack: {error.__cause__ or error}"
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
        return _ormsgpack().Ext(*cast("ExtType", value))  # the type of `msgpack` as well
    return _json_default(value, "msgpack")


@cache
def _ormsgpack() -> Any:
    import ormsgpack  # only sessions need it

    return ormsgpack
