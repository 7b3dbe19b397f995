"""Pictures drawn from words: the same prompt always gives the same picture."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFilter

from fal_async.cli._pictures import resized
from fal_async.cli._silhouettes import SILHOUETTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageDraw import ImageDraw as Pen

    #: From a place between left and right to one between top and bottom, both from 0 to 1.
    _Outline = Callable[[float], float]

__all__ = ["draw"]

#: Everything is drawn larger by this factor and scaled down, which smooths the edges.
_OVERSAMPLING: Final = 2
_HORIZON: Final = 0.66


@dataclass(frozen=True, slots=True)
class _Palette:
    sky: tuple[str, str, str]
    light: str
    far: str
    near: str


_PALETTES: Final = {
    "night": _Palette(("#0a1030", "#27306b", "#7d6aa8"), "#fff6d5", "#454585", "#0a0c22"),
    "dusk": _Palette(("#2a1f55", "#b0487a", "#ffb778"), "#fff1c9", "#8a4576", "#1c0f2c"),
    "dawn": _Palette(("#5c83bd", "#efb9c6", "#ffe9c4"), "#fffaf0", "#9b93bb", "#2c3352"),
    "day": _Palette(("#2f80c8", "#8ccbea", "#f2faf4"), "#fffdf0", "#86b5a3", "#1b4a3e"),
    "winter": _Palette(("#5a7ca0", "#b9d0e2", "#fbfcff"), "#ffffff", "#b4c5d4", "#3a4e63"),
    "desert": _Palette(("#4a86b8", "#f4c890", "#fdebcd"), "#fff8e0", "#dd9a62", "#65351f"),
}
_MOODS: Final = {
    "night": {"night", "midnight", "moon", "moonlight", "star", "stars", "stormy", "dark"},
    "dusk": {"dusk", "sunset", "evening", "twilight", "autumn", "red", "pink", "neon"},
    "dawn": {"dawn", "sunrise", "morning", "spring", "mist", "fog", "dream"},
    "day": {"day", "noon", "summer", "green", "meadow", "sunny"},
    "winter": {"winter", "snow", "snowy", "ice", "cold", "arctic"},
    "desert": {"desert", "sand", "dune", "dunes", "dry", "mars"},
}
_WATER: Final = {"sea", "ocean", "lake", "water", "river", "bay", "coast", "beach", "island"}
_PEAKS: Final = {"mountain", "mountains", "peak", "peaks", "alps", "volcano", "fuji"}


def draw(prompt: str, size: tuple[int, int]) -> Image.Image:
    """A landscape with what the prompt speaks of, as far as this painter can.

    Args:
        prompt: Any text. Its words choose the mood and the things in the picture; the rest is
            chosen by chance, with the text as the seed.
        size: Width and height, in pixels.
    """
    return resized(_Painter(prompt, size).paint(), size, Image.Resampling.LANCZOS)


class _Painter:
    def __init__(self, prompt: str, size: tuple[int, int]) -> None:
        self._random = random.Random(prompt)  # noqa: S311 - chance for the eye
        self._words = set(re.findall(r"[a-z]+", prompt.lower()))
        self._width, self._height = (side * _OVERSAMPLING for side in size)
        moods = [mood for mood, words in _MOODS.items() if words & self._words]
        self._mood = moods[0] if moods else self._random.choice(["dusk", "dawn", "day"])
        self._palette = _PALETTES[self._mood]
        self._subjects = [name for name in SILHOUETTES if {name, f"{name}s"} & self._words]
        self._wet = bool(_WATER & self._words) or "boat" in self._subjects
        self._light = (self._random.uniform(0.56, 0.72), self._random.uniform(0.26, 0.36))

    def paint(self) -> Image.Image:
        canvas = self._shine(self._sky())
        pen = ImageDraw.Draw(canvas)
        if self._mood == "night":
            self._stars(pen)
        self._disc(pen)
        for depth in (0.0, 0.3, 0.6):
            self._land(pen, self._hills(depth), depth)
        if self._wet:
            canvas.paste(self._water(canvas), (0, int(self._height * _HORIZON)))
            self._glitter(pen)
        ground = self._shore() if self._wet else self._hills(1.0)
        self._land(pen, ground, 1.0)
        self._populate(pen, ground)
        return canvas

    def _sky(self) -> Image.Image:
        stops = Image.new("RGB", (1, 3))
        for row, colour in enumerate(self._palette.sky):
            stops.putpixel((0, row), _rgb(colour))
        horizon = int(self._height * _HORIZON)
        canvas = Image.new("RGB", (self._width, self._height), self._palette.sky[-1])
        canvas.paste(resized(stops, (self._width, horizon)))
        return canvas

    def _shine(self, canvas: Image.Image) -> Image.Image:
        halo = Image.new("RGB", (self._width // 8, self._height // 8))
        x, y = self._light[0] * halo.width, self._light[1] * halo.height
        for reach, strength in ((0.42, 0.10), (0.24, 0.16), (0.13, 0.24)):
            colour = _mix("#000000", self._palette.light, strength)
            glow = Image.new("RGB", halo.size)
            ImageDraw.Draw(glow).circle((x, y), reach * halo.height, fill=colour)
            blurred = glow.filter(ImageFilter.GaussianBlur(reach * halo.height / 3))
            halo = ImageChops.add(halo, blurred)
        return ImageChops.screen(canvas, resized(halo, canvas.size))

    def _stars(self, pen: Pen) -> None:
        for _ in range(160):
            x = self._random.uniform(0, self._width)
            y = self._random.uniform(0, 0.8) ** 1.5 * self._height * _HORIZON
            colour = _mix(self._palette.sky[1], self._palette.light, self._random.random())
            pen.circle((x, y), self._random.uniform(0.6, 1.0) * self._height / 500, fill=colour)

    def _disc(self, pen: Pen) -> None:
        x, y = self._light
        pen.circle(
            (x * self._width, y * self._height), 0.085 * self._height, fill=self._palette.light
        )

    def _land(self, pen: Pen, ground: _Outline, depth: float) -> None:
        step = 2 * _OVERSAMPLING
        outline = [
            (x, self._height * ground(x / self._width)) for x in range(0, self._width + step, step)
        ]
        colour = _mix(self._palette.far, self._palette.near, depth)
        if depth == 0:
            colour = _mix(self._palette.sky[2], self._palette.far, 0.6)
        pen.polygon([*outline, (self._width, self._height), (0, self._height)], fill=colour)

    def _hills(self, depth: float) -> _Outline:
        """A range of hills: far ones at depth 0, those in front at 1."""
        jagged = depth < 0.5 and bool(_PEAKS & self._words)
        rise = self._undulation(jagged=jagged)
        base = _HORIZON + 0.02 + (0.05 if self._wet else 0.18) * depth
        height = (0.5 if jagged else 0.12) * (1 - 0.55 * depth)
        return lambda x: base - height * (rise(x) + 1) / 2

    def _shore(self) -> _Outline:
        """Land to the left of the water."""
        rise = self._undulation(jagged=False)
        return lambda x: 0.94 - 0.24 / (1 + math.exp((x - 0.36) * 16)) - 0.01 * rise(x)

    def _undulation(self, *, jagged: bool) -> _Outline:
        wave = _zigzag if jagged else math.sin
        waves = [
            (frequency * self._random.uniform(0.8, 1.3), self._random.uniform(0, math.tau), weight)
            for frequency, weight in ((3, 1.0), (7, 0.33), (15, 0.17), (31, 0.11))
        ]
        return lambda x: sum(weight * wave(f * x + phase) for f, phase, weight in waves)

    def _water(self, canvas: Image.Image) -> Image.Image:
        horizon = int(self._height * _HORIZON)
        depth = self._height - horizon
        mirrored = canvas.crop((0, horizon - depth, self._width, horizon)).transpose(
            Image.Transpose.FLIP_TOP_BOTTOM
        )
        dark = Image.new("RGB", mirrored.size, self._palette.near)
        return Image.blend(mirrored.filter(ImageFilter.GaussianBlur(self._height / 90)), dark, 0.35)

    def _glitter(self, pen: Pen) -> None:
        for _ in range(150):
            depth = self._random.random() ** 1.4
            y = self._height * (_HORIZON + 0.005 + (1 - _HORIZON) * depth)
            x = self._width * (self._light[0] + self._random.gauss(0, 0.025 + 0.035 * depth))
            reach = self._width * self._random.uniform(0.004, 0.016) * (0.4 + depth)
            colour = _mix(self._palette.sky[2], self._palette.light, self._random.random())
            pen.line([(x - reach, y), (x + reach, y)], fill=colour, width=_OVERSAMPLING)

    def _populate(self, pen: Pen, ground: _Outline) -> None:
        """Put the things into their element; those on the land stand side by side."""
        ashore = sum(SILHOUETTES[name].element == "land" for name in self._subjects)
        left, right = (0.07, 0.36) if self._wet else (0.1, 0.9)
        step = (right - left) / max(1, ashore)
        places = (left + step * (number + 0.5) for number in range(ashore))
        for name in self._subjects:
            thing = SILHOUETTES[name]
            match thing.element:
                case "air":
                    x, y = 0.27, 0.22
                case "water":
                    x, y = 0.66, _HORIZON + 0.1
                case _:
                    x = next(places)
                    y = ground(x)
            thing.draw(
                pen,
                foot=(x * self._width, y * self._height),
                height=thing.size * self._height,
                dark=self._palette.near,
                light=self._palette.light,
            )


def _zigzag(angle: float) -> float:
    return 1 - 2 * abs(angle / math.pi % 2 - 1)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return red, green, blue


def _mix(start: str, end: str, share: float) -> tuple[int, int, int]:
    red, green, blue = (
        round(a + (b - a) * share) for a, b in zip(_rgb(start), _rgb(end), strict=True)
    )
    return red, green, blue
