"""Media types and data URLs."""

from __future__ import annotations

import base64
import mimetypes
import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from fal_async._files.images import image_bytes, image_type
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from fal_async._files.images import Picture

__all__ = ["BINARY", "encode", "encode_file", "encode_image", "file_name", "media_type"]


#: What is not known to be anything else.
BINARY: Final = "application/octet-stream"


#: What models take and give that Python does not know on every system.
_EXTRA_TYPES: Final = {
    ".avif": "image/avif",
    ".flac": "audio/flac",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".heic": "image/heic",
    ".m4a": "audio/mp4",
    ".mkv": "video/x-matroska",
    ".obj": "model/obj",
    ".opus": "audio/opus",
    ".safetensors": BINARY,
    ".webm": "video/webm",
    ".webp": "image/webp",
}


def file_name(path: object) -> str:
    """The last part of a path.

    Raises:
        InvalidRequestError: It is no path.
    """
    try:
        return PurePath(os.fsdecode(path)).name  # type: ignore[arg-type]  # what else it is, is told
    except TypeError as error:
        raise InvalidRequestError(f"not a path: {error}") from error


def media_type(name: str) -> str:
    """The media type of a file of this name. The first call reads files of the system."""
    suffix = PurePath(name).suffix.lower()
    guessed, coding = mimetypes.guess_type(name)
    if coding is not None:
        return f"application/{coding}"
    return _EXTRA_TYPES.get(suffix) or guessed or BINARY


def encode(data: str | bytes, content_type: str) -> str:
    """Text or bytes as a data URL.

    Args:
        data: What the URL holds; text is written in UTF-8.
        content_type: Its media type.

    Example:
        >>> encode("hello", "text/plain")
        'data:text/plain;base64,aGVsbG8='
    """
    content = data.encode() if isinstance(data, str) else data
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def encode_file(path: str | os.PathLike[str]) -> str:
    """A file as a data URL, with the media type that its name tells.

    Args:
        path: Where the file is.

    Raises:
        OSError: It cannot be read.
    """
    path = Path(path)
    return encode(path.read_bytes(), media_type(path.name))


def encode_image(image: Picture, format: str = "jpeg") -> str:  # noqa: A002 -- the official name
    """An image of Pillow, or an array of NumPy, as a data URL.

    Args:
        image: The image.
        format: A format that Pillow writes, such as ``"png"``.

    Raises:
        InvalidRequestError: The image cannot be written so.
    """
    return encode(image_bytes(image, format), image_type(format))
