"""The filters of the demo, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from fal_async.cli._pictures import resized

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FILTERS"]


def _dream(picture: Image.Image) -> Image.Image:
    soft = picture.filter(ImageFilter.GaussianBlur(picture.width / 60))
    glowing = Image.blend(picture, ImageChops.screen(picture, soft), 0.55)
    return ImageEnhance.Color(glowing).enhance(1.2)


def _duotone(picture: Image.Image) -> Image.Image:
    grey = ImageOps.autocontrast(ImageOps.grayscale(picture), cutoff=1)
    return ImageOps.colorize(grey, black="#1b1464", mid="#ef476f", white="#fff3b0")


def _mosaic(picture: Image.Image) -> Image.Image:
    tile = max(4, picture.width // 64)
    small = resized(picture, (max(1, picture.width // tile), max(1, picture.height // tile)))
    return resized(small, picture.size, Image.Resampling.NEAREST)


def _poster(picture: Image.Image) -> Image.Image:
    vivid = ImageEnhance.Color(ImageOps.autocontrast(picture, cutoff=1)).enhance(1.4)
    return vivid.quantize(9, dither=Image.Dither.NONE).convert("RGB")


def _sketch(picture: Image.Image) -> Image.Image:
    grey = ImageOps.grayscale(picture)
    strokes = ImageChops.difference(grey, grey.filter(ImageFilter.GaussianBlur(2)))
    lines = Image.eval(strokes, lambda level: max(0, 255 - 9 * level))
    shade = Image.eval(grey, lambda level: 170 + level // 3)
    pencil = ImageChops.multiply(lines, shade)
    return ImageOps.colorize(pencil, black="#2b2d42", white="#fbf7ef")


def _none(picture: Image.Image) -> Image.Image:
    return picture


FILTERS: Final[Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "dream": _dream,
    "duotone": _duotone,
    "mosaic": _mosaic,
    "poster": _poster,
    "sketch": _sketch,
    "none": _none,
}
