"""Parts of a benchmark: cases, legs, columns and bars."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.work import Work

__all__ = ["NAMES", "Bar", "Benchmark", "Case", "Column", "Leg", "Measures", "load"]

#: The benchmarks, in the order in which they run. Each is a module of this package.
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
    "burst",
    "tls",
    "proxy",
    "webhooks",
    "batches",
    "engines",
    "accounts",
)

#: The measures of one leg in one round, by name.
Measures: TypeAlias = dict[str, float]


@dataclass(frozen=True)
class Leg:
    """One client under test.

    Attributes:
        name: The name in tables.
        measure: Runs the leg once, in its own process.
        needs: The other packages that it imports.
        programs: The programs that it runs.
    """

    name: str
    measure: Callable[[Work], Measures]
    needs: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Return the packages and programs that are not installed."""
        packages = [package for package in self.needs if find_spec(package) is None]
        return packages + [program for program in self.programs if which(program) is None]


@dataclass(frozen=True)
class Case:
    """One size of the benchmark.

    Attributes:
        name: The name in tables.
        numbers: The sizes that are passed to the legs.
        patience: The timeout of a leg, in seconds. Later rounds skip a leg that exceeded it.
        stub: Additional options of the stub.
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
        promise: The subject of the promise.
        measure: The measure on both sides.
        case: The case of the numerator.
        leg: The leg of the numerator.
        against: The leg of the denominator; ``None`` for none, so that the measure itself counts.
        against_case: The case of the denominator; ``None`` for the same.
        at_most: The upper bound, if there is one.
        at_least: The lower bound, if there is one.
    """

    promise: str
    measure: str
    case: str
    leg: str
    against: str | None = None
    against_case: str | None = None
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark. The first column compares the legs.

    Attributes:
        name: The name of its module.
        title: The description that is printed before the tables.
        legs: The clients under test.
        cases: The cases of a full run.
        quick: The cases of ``--quick``, which only checks that the benchmark works.
        columns: The columns of the tables.
        bars: The promised limits.
        baseline: The leg that the others are compared with.
    """

    name: str
    title: str
    legs: tuple[Leg, ...]
    cases: tuple[Case, ...]
    quick: tuple[Case, ...]
    columns: tuple[Column, ...]
    bars: tuple[Bar, ...] = field(default=())
    baseline: str

    def leg(self, name: str) -> Leg:
        """Return a leg by its name."""
        return next(leg for leg in self.legs if leg.name == name)


def load(name: str) -> Benchmark:
    """Load a benchmark by its name."""
    benchmark: Benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    return benchmark
