"""JSON and msgpack as apps of the platform read and write them: with Python's own `json`."""

from __future__ import annotations

import json
from typing import Any, cast

import ormsgpack
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from fal_async.types import ExtType

__all__ = ["decode", "decode_msgpack", "decode_or_none", "encode", "encode_msgpack"]


def decode(text: str | bytes) -> Any:
    """Decode JSON.

    Raises:
        ValueError: The text is not valid JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("cannot decode the JSON: it is nested too deeply") from error


def decode_or_none(text: str | bytes) -> Any:
    """Decode JSON, or return ``None`` if the text is not valid JSON."""
    try:
        return decode(text)
    except ValueError:
        return None


def encode(value: object) -> bytes:
    """Encode a value as JSON.

    Types that `json` does not support, such as models and dates, are encoded by pydantic.

    Raises:
        ValueError: The value has no JSON form.
    """
    try:
        text = _dump(value)
    except TypeError:  # keys that are neither text nor numbers
        text = _dump(_to_json_value(value))
    except RecursionError as error:
        raise ValueError("cannot encode the value as JSON: it is nested too deeply") from error
    return text.encode("utf-8", "backslashreplace")  # writes surrogates as JSON escapes


def _dump(value: object) -> str:
    return json.dumps(value, default=_to_json_value, ensure_ascii=False, separators=(",", ":"))


def _to_json_value(value: object) -> object:
    return cast("object", to_jsonable_python(value, by_alias=False))


def decode_msgpack(message: bytes) -> Any:
    """Decode a msgpack message. Extensions and timestamps become `ExtType`.

    Raises:
        ValueError: The message is not valid msgpack.
    """
    return ormsgpack.unpackb(message, ext_hook=ExtType, option=ormsgpack.OPT_NON_STR_KEYS)


def encode_msgpack(value: object) -> bytes:
    """Encode a value as a msgpack message.

    Raises:
        TypeError: The value has no msgpack form.
    """

    def default(value: object) -> object:
        if isinstance(value, BaseModel):
            return value.model_dump()
        if isinstance(value, ExtType):
            return ormsgpack.Ext(*value)
        raise TypeError(f"cannot encode {type(value).__name__} as msgpack")

    return ormsgpack.packb(value, default=default, option=ormsgpack.OPT_NON_STR_KEYS)
