"""JSON and msgpack, as the apps of the platform read and write them: with Python's own `json`."""

from __future__ import annotations

import json
from typing import Any, cast

import ormsgpack
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from fal_async.types import ExtType

__all__ = ["decode", "decode_or_none", "decode_packed", "encode", "encode_packed"]


def decode(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: It is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def decode_or_none(text: str | bytes) -> Any:
    """Read JSON; ``None`` for what is not JSON."""
    try:
        return decode(text)
    except ValueError:
        return None


def encode(value: object) -> bytes:
    """Write JSON: what `json` does not know, such as models and dates, as pydantic writes it.

    Raises:
        ValueError: There is no JSON for it.
    """
    try:
        text = _dump(value)
    except TypeError:  # keys that are neither text nor numbers
        text = _dump(_plain(value))
    except RecursionError as error:
        raise ValueError("the value is nested too deeply") from error
    return text.encode("utf-8", "backslashreplace")  # which writes surrogates as JSON does


def _dump(value: object) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _plain(value: object) -> object:
    return cast("object", to_jsonable_python(value, by_alias=False))


def decode_packed(message: bytes) -> Any:
    """Read the value of a msgpack message; extensions and timestamps are `ExtType`.

    Raises:
        ValueError: It is not msgpack.
    """
    return ormsgpack.unpackb(message, ext_hook=ExtType, option=ormsgpack.OPT_NON_STR_KEYS)


def encode_packed(value: object) -> bytes:
    """Write a msgpack message.

    Raises:
        TypeError: msgpack cannot say it.
    """
    return ormsgpack.packb(value, default=_packable, option=ormsgpack.OPT_NON_STR_KEYS)


def _packable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, ExtType):
        return ormsgpack.Ext(*value)
    raise TypeError(f"{type(value).__name__} is no type of msgpack")
