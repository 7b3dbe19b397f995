"""Parts of a benchmark: question, cases, legs and bars."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.work import Work

__all__ = ["NAMES", "Bar", "Case", "Column", "Leg", "Measures", "Question", "load"]

#: The questions, in the order in which they are asked; each is a module of this package.
NAMES = (
    "run",
    "queue",
    "stream",
    "realtime",
    "files",
    "downloads",
    "facade",
    "start",
    "growth",
    "tls",
)

#: What one leg measured in one round, by name.
Measures: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Leg:
    """One client under test.

    Attributes:
        name: How tables call it.
        measure: Runs it once, in a process of its own.
        needs: The packages that it imports, beyond ours.
    """

    name: str
    measure: Callable[[Work], Measures]
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [package for package in self.needs if find_spec(package) is None]


@dataclass(frozen=True)
class Case:
    """One size of the question.

    Attributes:
        name: How tables call it.
        numbers: What the legs are told.
        patience: After how many seconds a leg is given up; it is not tried again in later rounds.
        stub: Further options of the stub.
    """

    name: str
    numbers: Mapping[str, int]
    patience: float = 120
    stub: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column of a table: a measure and its title."""

    measure: str
    title: str


@dataclass(frozen=True)
class Bar:
    """A limit for the ratio of two measures of the same round.

    Attributes:
        says: What the promise is about.
        measure: The measure on both sides.
        case: The case of the numerator.
        leg: The leg of the numerator.
        against: The leg of the denominator; ``None`` for none, so that the measure itself counts.
        against_case: The case of the denominator; ``None`` for the same.
        at_most: The upper bound, if there is one.
        at_least: The lower bound, if there is one.
    """

    says: str
    measure: str
    case: str
    leg: str
    against: str | None = None
    against_case: str | None = None
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """One benchmark. The first column compares the legs.

    Attributes:
        name: The name of its module.
        asks: The question, in words.
        legs: The contestants.
        cases: What a full run measures.
        quick: What ``--quick`` runs, to see that it works.
        columns: What the tables show.
        bars: What is promised.
        baseline: The leg that the others are divided by.
    """

    name: str
    asks: str
    legs: tuple[Leg, ...]
    cases: tuple[Case, ...]
    quick: tuple[Case, ...]
    columns: tuple[Column, ...]
    bars: tuple[Bar, ...] = field(default=())
    baseline: str

    def leg(self, name: str) -> Leg:
        """Return a leg by its name."""
        return next(leg for leg in self.legs if leg.name == name)


def load(name: str) -> Question:
    """Return the question of a module."""
    question: Question = importlib.import_module(f"benchmarks.{name}").QUESTION
    return question
