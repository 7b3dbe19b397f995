"""Pictures on their way between files, data URIs and the eye."""

from __future__ import annotations

import math
import random
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from io import BytesIO
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Literal, Protocol

from PIL import (
    Image,
    ImageChops,
    ImageColor,
    ImageDraw,
    ImageEnhance,
    ImageFilter,
    ImageOps,
    UnidentifiedImageError,
)
from rich.color import Color
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from PIL.ImageDraw import ImageDraw as Pen

    _Outline = Callable[[float], float]

__all__ = [
    "FILTERS",
    "GAP",
    "SILHOUETTES",
    "InvalidImageError",
    "Silhouette",
    "as_data_uri",
    "can_be_saved_as",
    "draw",
    "encoded",
    "from_data_uri",
    "is_stored_as",
    "make_thumbnail",
    "read_picture",
    "resized",
    "side_by_side",
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


class InvalidImageError(ValueError):
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
        raise InvalidImageError("not a picture") from error
    except Exception as error:
        raise InvalidImageError(f"a picture that cannot be read: {error}") from error
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


def make_thumbnail(content: bytes) -> bytes:
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
        raise InvalidImageError("not a data URI in base64")
    try:
        return b64decode(url[match.end() :], validate=True)
    except ValueError as error:
        raise InvalidImageError(f"a data URI with broken base64: {error}") from error


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


_TAIL_TURNS: Final = [step / 4 for step in range(16)]


class _Stroke(Protocol):
    def __call__(self, at: _Scale, dark: str, light: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Scale:
    """A pen whose unit is the height of the thing, with the middle of its foot as the origin."""

    pen: Pen
    foot: tuple[float, float]
    unit: float

    def points(self, *points: tuple[float, float]) -> list[tuple[float, float]]:
        x, y = self.foot
        return [(x + dx * self.unit, y - dy * self.unit) for dx, dy in points]

    def polygon(self, colour: str, *points: tuple[float, float]) -> None:
        self.pen.polygon(self.points(*points), fill=colour)

    def oval(self, colour: str, centre: tuple[float, float], width: float, height: float) -> None:
        x, y = centre
        low, high = self.points((x - width / 2, y + height / 2), (x + width / 2, y - height / 2))
        self.pen.ellipse([low, high], fill=colour)

    def line(self, colour: str, width: float, *points: tuple[float, float]) -> None:
        thickness = max(1, round(width * self.unit))
        self.pen.line(self.points(*points), fill=colour, width=thickness, joint="curve")


@dataclass(frozen=True, slots=True)
class Silhouette:
    """One thing.

    Attributes:
        stroke: Draws it.
        size: Its height, as a share of the picture's.
        element: Where it belongs.
    """

    stroke: _Stroke
    size: float
    element: Literal["land", "water", "air"] = "land"

    def draw(
        self, pen: Pen, foot: tuple[float, float], height: float, dark: str, light: str
    ) -> None:
        """Draw it with its foot at this point."""
        self.stroke(_Scale(pen, foot, height), dark, light)


def _cat(at: _Scale, dark: str, light: str) -> None:
    tail = [(0.5 + 0.14 * math.sin(turn), 0.2 - 0.16 * math.cos(turn)) for turn in _TAIL_TURNS]
    at.line(dark, 0.09, (0.1, 0.04), *tail)
    at.oval(dark, tail[-1], 0.09, 0.09)
    at.oval(dark, (0, 0.22), 0.56, 0.56)
    at.oval(dark, (0, 0.42), 0.4, 0.6)
    at.oval(dark, (0, 0.76), 0.4, 0.36)
    at.polygon(dark, (-0.2, 0.76), (-0.19, 1.06), (-0.02, 0.9))
    at.polygon(dark, (0.2, 0.76), (0.19, 1.06), (0.02, 0.9))
    at.polygon(dark, (-0.3, -0.2), (-0.26, 0.12), (0.26, 0.12), (0.3, -0.2))


def _house(at: _Scale, dark: str, light: str) -> None:
    at.polygon(dark, (-0.5, -0.3), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.3))
    at.polygon(dark, (-0.62, 0.5), (0, 1.0), (0.62, 0.5))
    at.polygon(dark, (0.24, 0.6), (0.24, 1.04), (0.4, 1.04), (0.4, 0.6))
    at.polygon(light, (-0.3, 0.18), (-0.3, 0.4), (-0.08, 0.4), (-0.08, 0.18))
    at.polygon(light, (0.08, 0.18), (0.08, 0.4), (0.3, 0.4), (0.3, 0.18))


def _tree(at: _Scale, dark: str, light: str) -> None:
    for place, height in ((-0.55, 0.72), (0.5, 0.8), (-0.95, 0.55), (0.95, 0.5), (0, 1.0)):
        at.polygon(
            dark,
            (place - 0.03, -0.3),
            (place - 0.03, 0.2),
            (place + 0.03, 0.2),
            (place + 0.03, -0.3),
        )
        for tier in range(4):
            low, width = height * (0.12 + 0.2 * tier), height * (0.25 - 0.05 * tier)
            at.polygon(
                dark, (place - width, low), (place, low + height * 0.34), (place + width, low)
            )


def _lighthouse(at: _Scale, dark: str, light: str) -> None:
    at.polygon(light, (0.05, 0.87), (1.5, 1.0), (1.5, 0.78))
    at.polygon(dark, (-0.15, -0.2), (-0.09, 0.8), (0.09, 0.8), (0.15, -0.2))
    at.polygon(light, (-0.07, 0.8), (-0.07, 0.92), (0.07, 0.92), (0.07, 0.8))
    at.polygon(dark, (-0.13, 0.78), (-0.13, 0.82), (0.13, 0.82), (0.13, 0.78))
    at.polygon(dark, (-0.1, 0.92), (0, 1.02), (0.1, 0.92))


def _city(at: _Scale, dark: str, light: str) -> None:
    towers = (0.5, 0.8, 0.62, 1.0, 0.7, 0.9, 0.45, 0.74, 0.55)
    for column, height in enumerate(towers):
        left = (column - len(towers) / 2) * 0.26
        at.polygon(dark, (left, -0.5), (left, height), (left + 0.24, height), (left + 0.24, -0.5))
        for floor in range(int(height / 0.11)):
            if (column * 7 + floor * 5) % 3:
                x, y = left + (0.05 if floor % 2 else 0.13), height - 0.09 - floor * 0.11
                at.polygon(light, (x, y), (x, y + 0.045), (x + 0.05, y + 0.045), (x + 0.05, y))


def _boat(at: _Scale, dark: str, light: str) -> None:
    at.polygon(light, (-0.03, 0.22), (-0.03, 0.96), (-0.4, 0.22))
    at.polygon(light, (0.03, 0.22), (0.03, 0.86), (0.32, 0.22))
    at.line(dark, 0.03, (0, 0.1), (0, 1.0))
    at.polygon(dark, (-0.48, 0.17), (0.48, 0.17), (0.34, 0), (-0.32, 0))


def _bird(at: _Scale, dark: str, light: str) -> None:
    for x, y in ((0, 0), (1.3, 0.5), (2.2, -0.1), (3.3, 0.8), (1.9, 1.5)):
        at.line(dark, 0.09, (x - 0.5, y + 0.3), (x - 0.25, y + 0.42), (x, y + 0.16))
        at.line(dark, 0.09, (x, y + 0.16), (x + 0.25, y + 0.42), (x + 0.5, y + 0.3))


#: By the word that calls for it, those at the back first.
SILHOUETTES: Final = {
    "bird": Silhouette(_bird, 0.05, "air"),
    "boat": Silhouette(_boat, 0.16, "water"),
    "city": Silhouette(_city, 0.3),
    "lighthouse": Silhouette(_lighthouse, 0.34),
    "tree": Silhouette(_tree, 0.3),
    "house": Silhouette(_house, 0.17),
    "cat": Silhouette(_cat, 0.2),
}


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
