"""Keys of inputs: by their contents, or by a column."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._core.checks import describe
from fal_async._protocol.serialization import decode_json, encode_arguments
from fal_async.errors import InvalidRequestError
from fal_async.types import Upload

if TYPE_CHECKING:
    from fal_async.types import Arguments

__all__ = ["DIGEST_SIZE", "KEY_SIZE", "arguments_digest", "check_key", "digest_json", "is_storable"]

#: The size of a digest of arguments, in bytes: no two of a billion inputs have the same.
DIGEST_SIZE: Final = 16
#: The length of a key, in hexadecimal digits.
KEY_SIZE: Final = 20


def is_storable(text: str) -> bool:
    """Return whether a journal can store a text: UTF-8 without null characters."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def digest_json(application: str, value: object) -> bytes:
    """Return a digest of an endpoint id and of JSON values. The order of names does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    content = f"{application}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).digest()[:DIGEST_SIZE]


def arguments_digest(application: str, arguments: Arguments) -> bytes:
    """Return a digest of an input. Files count by their content, which is read from the disk.

    Args:
        application: The endpoint id, with the path within the app.
        arguments: The arguments.

    Raises:
        InvalidRequestError: The arguments cannot be sent, or contain a file that can be read only
            once.
        OSError: A file cannot be read.
    """
    if isinstance(arguments, Mapping):
        try:
            arguments = cast("Mapping[str, Any]", _replace_files(arguments))
        except RecursionError as error:
            raise InvalidRequestError(
                "cannot encode the arguments: they are nested too deeply"
            ) from error
    return digest_json(application, decode_json(encode_arguments(arguments)))


def _replace_files(value: Any) -> Any:
    """Return a copy of a value with digests in place of files."""
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value)
        return {name: _replace_files(items[name]) for name in items}
    if isinstance(value, list | tuple):
        return [_replace_files(item) for item in cast("list[Any]", value)]
    if isinstance(value, Upload):
        return {"upload": _file_digest(value.data), "type": value.content_type}
    if isinstance(value, os.PathLike):
        return {"upload": _file_digest(cast("os.PathLike[str]", value))}
    if hasattr(value, "read") or hasattr(value, "save") or hasattr(value, "tobytes"):
        return {"upload": _file_digest(value)}
    return value


def _file_digest(data: object) -> str:
    if isinstance(data, str):
        data = data.encode()
    if isinstance(data, bytes | bytearray | memoryview):
        return hashlib.sha256(cast("bytes", data)).hexdigest()
    if isinstance(data, os.PathLike):
        with Path(cast("os.PathLike[str]", data)).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    raise InvalidRequestError(
        f"key must be given for inputs with {describe(data)}: the content of a path or of bytes "
        "can be compared with that of an earlier run, and other files cannot"
    )


def check_key(value: object) -> str:
    """Return the key that a column or a function has given."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**128:
        return str(value)
    if not isinstance(value, str) or not value or not is_storable(value):
        raise InvalidRequestError(f"key must be text or a whole number, got {describe(value)}")
    return value
