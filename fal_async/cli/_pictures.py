"""Pictures on their way between files, data URIs and the eye."""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, cast

from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "NoPictureError",
    "as_data_uri",
    "can_be_saved_as",
    "from_data_uri",
    "picture_url",
    "read_picture",
    "resized",
    "save_picture",
]

#: Larger pictures are scaled down to fit into a square of this many pixels.
_MAX_SIDE: Final = 1536
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


def as_data_uri(picture: Image.Image, format: str) -> str:  # noqa: A002 - Pillow's word for it
    """The picture as a ``data:`` URI."""
    content = BytesIO()
    picture.save(content, format, quality=92)
    return f"data:{Image.MIME[format]};base64,{b64encode(content.getvalue()).decode()}"


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


def picture_url(output: object) -> str | None:
    """Where the first picture is in the output of a model; ``None`` when there is none."""
    if not isinstance(output, dict):
        return None
    fields = cast("dict[str, Any]", output)
    match fields.get("images") or fields.get("image"):
        case {"url": str(url)} | [{"url": str(url)}, *_] | [str(url), *_] | str(url):
            return url
        case _:
            return None


def can_be_saved_as(suffix: str) -> bool:
    """Whether there is an encoder for files whose names end like this."""
    return Image.registered_extensions().get(suffix.lower()) in Image.SAVE


def save_picture(picture: Image.Image, out: Path) -> None:
    """Write a picture in the format that the name stands for; never leaves half a file there."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        picture.save(part, Image.registered_extensions()[out.suffix.lower()])
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
