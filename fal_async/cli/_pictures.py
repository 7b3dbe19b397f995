"""Pictures on their way between files, data URIs and the eye."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from io import BytesIO
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = [
    "NoPictureError",
    "as_data_uri",
    "can_be_saved_as",
    "encoded",
    "from_data_uri",
    "in_small",
    "is_stored_as",
    "read_picture",
    "resized",
    "stored_as",
]

#: The size into which pictures fit that go through a session, in pixels.
_SMALL: Final = (192, 192)
#: Larger pictures are scaled down to fit into a square of this many pixels.
_MAX_SIDE: Final = 1536
#: How hard to compress a PNG: more takes twice the time, and saves next to nothing.
_COMPRESSION: Final = 3
_DATA_URI: Final = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
_BACKGROUND: Final = "white"


class NoPictureError(ValueError):
    """Something is not a picture that can be read."""


def read_picture(content: bytes) -> Image.Image:
    """Decode a picture of any common format: upright, without transparency, and not too large.

    Raises:
        NoPictureError: It cannot be decoded.
    """
    try:
        with Image.open(BytesIO(content)) as picture:
            picture.draft("RGB", (_MAX_SIDE, _MAX_SIDE))
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except UnidentifiedImageError as error:
        raise NoPictureError("not a picture") from error
    except Exception as error:
        raise NoPictureError(f"a picture that cannot be read: {error}") from error
    upright.thumbnail((_MAX_SIDE, _MAX_SIDE))
    canvas = Image.new("RGB", upright.size, _BACKGROUND)
    canvas.paste(upright, mask=upright.getchannel("A"))
    return canvas


def resized(
    picture: Image.Image,
    size: tuple[int, int],
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """The picture in another size."""
    return picture.resize(size, resample)  # pyright: ignore[reportUnknownMemberType]  # numpy's types


def encoded(picture: Image.Image, format: str) -> bytes:  # noqa: A002 - Pillow's word for it
    """The picture as the content of a file."""
    content = BytesIO()
    picture.save(content, format, quality=92, compress_level=_COMPRESSION)
    return content.getvalue()


def as_data_uri(picture: Image.Image, format: str) -> str:  # noqa: A002 - Pillow's word for it
    """The picture as a ``data:`` URI."""
    content = b64encode(encoded(picture, format)).decode()
    return f"data:{Image.MIME[format]};base64,{content}"  # which is known once one was encoded


def in_small(content: bytes) -> bytes:
    """A picture as a small JPEG.

    Raises:
        NoPictureError: It cannot be decoded.
    """
    picture = read_picture(content)
    picture.thumbnail(_SMALL)
    return encoded(picture, "JPEG")


def from_data_uri(url: str) -> bytes:
    """What a ``data:`` URI holds.

    Raises:
        NoPictureError: It is not a data URI in base64.
    """
    match = _DATA_URI.match(url)
    if match is None:
        raise NoPictureError("not a data URI in base64")
    try:
        return b64decode(url[match.end() :], validate=True)
    except ValueError as error:
        raise NoPictureError(f"a data URI with broken base64: {error}") from error


def can_be_saved_as(suffix: str) -> bool:
    """Whether there is an encoder for files whose names end like this."""
    return Image.registered_extensions().get(suffix.lower()) in Image.SAVE


def is_stored_as(content: bytes, suffix: str) -> bool:
    """Whether a picture is of the format that names of files stand for which end like this."""
    with Image.open(BytesIO(content)) as picture:
        return picture.format == Image.registered_extensions().get(suffix.lower())


def stored_as(picture: Image.Image, suffix: str) -> bytes:
    """The picture as the content of a file whose name ends like this."""
    content = BytesIO()
    picture.save(content, Image.registered_extensions()[suffix.lower()])
    return content.getvalue()
