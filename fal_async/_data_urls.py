"""Files as data URLs: small ones can be sent along with the arguments."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from fal_async._images import image_bytes, image_type
from fal_async._media_types import media_type

if TYPE_CHECKING:
    import os

    from fal_async._images import Picture

__all__ = ["encode", "encode_file", "encode_image"]


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
