"""Ratios within rounds, compared with the bars."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.benchmark import Bar
    from benchmarks.rounds import Reading

__all__ = ["Spread", "Verdict", "ratios", "spread", "verdict"]


@dataclass(frozen=True)
class Spread:
    """Median, best and worst value of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of values, or ``None`` if there are none."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Verdict:
    """A bar and its measured ratio; ``None`` where a leg has no measures."""

    bar: Bar
    found: Spread | None

    @property
    def word(self) -> str:
        """``ok``, ``missed`` or ``not measured``."""
        if self.found is None:
            return "not measured"
        bar, median = self.bar, self.found.median
        within = bar.at_most is None or median <= bar.at_most
        return "ok" if within and (bar.at_least is None or median >= bar.at_least) else "missed"


def spread(readings: Iterable[Reading], case: str, leg: str, measure: str) -> Spread | None:
    """Return one measure of a leg over the rounds."""
    return Spread.over(list(_by_round(readings, case, leg, measure).values()))


def ratios(
    readings: Sequence[Reading], measure: str, top: tuple[str, str], bottom: tuple[str, str]
) -> Spread | None:
    """Return the ratio of two legs, each given as case and name, round by round."""
    above = _by_round(readings, *top, measure)
    below = _by_round(readings, *bottom, measure)
    shared = [number for number in above if below.get(number)]
    return Spread.over([above[number] / below[number] for number in shared])


def verdict(bar: Bar, readings: Sequence[Reading]) -> Verdict:
    """Compare the readings with a bar."""
    if bar.against is None:
        return Verdict(bar, spread(readings, bar.case, bar.leg, bar.measure))
    bottom = (bar.against_case or bar.case, bar.against)
    return Verdict(bar, ratios(readings, bar.measure, (bar.case, bar.leg), bottom))


def _by_round(readings: Iterable[Reading], case: str, leg: str, measure: str) -> dict[int, float]:
    return {
        reading.round: reading.measures[measure]
        for reading in readings
        if reading.case == case
        and reading.leg == leg
        and reading.measures is not None
        and measure in reading.measures
    }
