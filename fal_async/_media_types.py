"""The media types of files, by their names."""

from __future__ import annotations

import mimetypes
import os
from pathlib import PurePath
from typing import Final

from fal_async.errors import InvalidRequestError

__all__ = ["BINARY", "media_type", "name_of"]

#: What is not known to be anything else.
BINARY: Final = "application/octet-stream"
#: What models take and give that Python does not know on every system.
_LATE: Final = {
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


def name_of(path: object) -> str:
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
    return _LATE.get(suffix) or guessed or BINARY
