"""Direct runs over TLS: their cost, and the reuse of connections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from benchmarks import run

if TYPE_CHECKING:
    from benchmarks.benchmark import Benchmark

__all__ = ["BENCHMARK"]

_LEGS: Final = {
    "fal_client, async",
    "fal_client, threads",
    "aiohttp",
    "ours, asyncio",
    "ours, uvloop",
    "ours, trio",
}
_STUB: Final = ("--tls",)
_CASES: Final = [replace(case, stub=_STUB) for case in run.BENCHMARK.cases[:3]]
_CASE_NAMES: Final = {case.name for case in _CASES}

BENCHMARK: Final[Benchmark] = replace(
    run.BENCHMARK,
    name="tls",
    title=__doc__ or "",
    legs=tuple(leg for leg in run.BENCHMARK.legs if leg.name in _LEGS),
    cases=tuple(_CASES),
    quick=tuple(replace(case, stub=_STUB) for case in run.BENCHMARK.quick),
    bars=tuple(
        replace(bar, at_most=0.7) if bar.against == "aiohttp" else bar
        for bar in run.BENCHMARK.bars
        if bar.case in _CASE_NAMES and bar.against in _LEGS
    ),
)
