"""Start: the cost of the import, and of the import with a first call."""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.first_call import CALLS

if TYPE_CHECKING:
    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK"]


def _start(work: Work, *, name: str) -> Measures:
    """Start fresh interpreters, after one that fills the disk caches."""
    _first_call(name, work)
    section = work.section()
    with section:
        found = [_first_call(name, work) for _ in range(work["repeats"])]
    import_s, import_bytes, total_s, cpu_s = (
        statistics.median(values) for values in zip(*found, strict=True)
    )
    return {
        "units": work["repeats"],
        "import_ms": 1e3 * import_s,
        "import_mb": import_bytes / 1e6,
        "total_ms": 1e3 * total_s,
        "cpu_ms": 1e3 * cpu_s,
        "calls": section.calls("run"),
    }


def _first_call(name: str, work: Work) -> list[float]:
    command = [sys.executable, "-m", "benchmarks.first_call", name, work.url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [float(number) for number in said.split()]


_OFFICIAL = "fal_client"

BENCHMARK = Benchmark(
    name="start",
    title=__doc__ or "",
    baseline=_OFFICIAL,
    legs=tuple(
        Leg(name, partial(_start, name=name), (package.partition(".")[0],))
        for name, (package, _) in CALLS.items()
    ),
    cases=(Case("a fresh interpreter", {"repeats": 5}),),
    quick=(Case("a fresh interpreter", {"repeats": 1}),),
    columns=(
        Column("total_ms", "import and first call ms"),
        Column("import_ms", "import ms"),
        Column("import_mb", "import MB"),
        Column("cpu_ms", "CPU ms in all"),
    ),
    bars=(
        Bar("import, of fal_client's", "import_ms", "a fresh interpreter", "ours",
            against=_OFFICIAL, at_most=0.1),
        Bar("import and first call, of fal_client's", "total_ms", "a fresh interpreter", "ours",
            against=_OFFICIAL, at_most=0.4),
    ),
)  # fmt: skip
