"""Things that a drawn picture can show, each in one colour before the sky."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw as Pen

__all__ = ["SILHOUETTES", "Silhouette"]


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
