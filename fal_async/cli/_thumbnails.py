"""Pictures in rough: two pixels to a cell of the terminal."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from fal_async.cli._pictures import resized

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["GAP", "side_by_side"]

#: The highest that a picture is shown, in cells, each of which is about twice as high as wide.
_HEIGHT: Final = 18
GAP: Final = "  "


def side_by_side(pictures: Sequence[Image.Image], width: int) -> Iterator[Text]:
    """Lines that show pictures in a row.

    Args:
        pictures: The pictures, one at least.
        width: How wide each may be, in cells.
    """
    columns = [list(_half_blocks(picture, width)) for picture in pictures]
    for parts in zip_longest(*columns, fillvalue=Text(" " * width)):
        yield Text(GAP).join(parts)


def _half_blocks(picture: Image.Image, width: int) -> Iterator[Text]:
    small = _fitted(picture, width, 2 * _HEIGHT)
    row = 3 * small.width
    pixels = small.tobytes()
    for start in range(0, len(pixels), 2 * row):
        upper, lower = pixels[start : start + row], pixels[start + row : start + 2 * row]
        line = Text()
        for at in range(0, row, 3):
            colours = Style(
                color=Color.from_rgb(*upper[at : at + 3]),
                bgcolor=Color.from_rgb(*lower[at : at + 3]),
            )
            line.append("▀", colours)
        yield line


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as large as may be, with an even number of rows; pixels stay visible."""
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), 2 * max(1, round(picture.height * scale / 2)))
    grows = scale > 1
    return resized(picture, size, Image.Resampling.NEAREST if grows else Image.Resampling.BICUBIC)
