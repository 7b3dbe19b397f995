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


#: The media type of unknown files.
BINARY: Final = "application/octet-stream"


#: Media types of models' inputs and outputs that some systems do not know.
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
    """Return the last part of a path.

    Raises:
        InvalidRequestError: The value is not a path.
    """
    try:
        return PurePath(os.fsdecode(path)).name  # type: ignore[arg-type]  # other types raise the error below
    except TypeError as error:
        raise InvalidRequestError(f"not a path: {error}") from error


def media_type(name: str) -> str:
    """Guess the media type of a file from its name. The first call reads files of the system."""
    suffix = PurePath(name).suffix.lower()
    guessed, coding = mimetypes.guess_type(name)
    if coding is not None:
        return f"application/{coding}"
    return _EXTRA_TYPES.get(suffix) or guessed or BINARY


def encode(data: str | bytes, content_type: str) -> str:
    """Encode text or bytes as a data URL.

    Args:
        data: The content. Text is encoded in UTF-8.
        content_type: The media type.

    Example:
        >>> encode("hello", "text/plain")
        'data:text/plain;base64,aGVsbG8='
    """
    content = data.encode() if isinstance(data, str) else data
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


def encode_file(path: str | os.PathLike[str]) -> str:
    """Encode a file as a data URL. Its name determines the media type.

    Args:
        path: The path of the file.

    Raises:
        OSError: The file cannot be read.
    """
    path = Path(path)
    return encode(path.read_bytes(), media_type(path.name))


def encode_image(image: Picture, format: str = "jpeg") -> str:  # noqa: A002 -- the official name
    """Encode a Pillow image or a NumPy array as a data URL.

    Args:
        image: The image.
        format: A format that Pillow writes, such as ``"png"``.

    Raises:
        InvalidRequestError: The image cannot be encoded in this format.
    """
    return encode(image_bytes(image, format), image_type(format))
