"""Waiting jobs: CPU and memory per job, by the number of jobs."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import anyio

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import APP, ours_at
from benchmarks.loops import on

if TYPE_CHECKING:
    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK"]

_ROUTES = ("submit", "status/stream", "status", "result")


async def _mixed(work: Work) -> Measures:
    from fal_async import Limits

    return await _wait(work, Limits().max_streams)


async def _streams(work: Work) -> Measures:
    return await _wait(work, work["jobs"])


async def _polls(work: Work) -> Measures:
    return await _wait(work, 0)


async def _wait(work: Work, max_streams: int) -> Measures:
    """Wait for jobs that run longer than submitting all of them takes."""
    from fal_async import Limits

    async with ours_at(work.url, limits=Limits(max_streams=max_streams)) as client:

        async def job() -> None:
            await client.subscribe(APP, {})

        await job()
        gc.collect()
        section = work.section()
        with section:
            async with anyio.create_task_group() as tasks:
                for _ in range(work["jobs"]):
                    tasks.start_soon(job)
    section.units = work["jobs"]
    measures, calls = section.measures(), {route: section.calls(route) for route in _ROUTES}
    return measures | calls | {
        "kb_per_job": 1000 * measures["growth_mb"] / work["jobs"],
        "requests": sum(calls.values()) / work["jobs"],
    }  # fmt: skip


def _case(jobs: int, seconds: float) -> Case:
    stub = ("--job-seconds", str(seconds))
    return Case(f"{jobs:,} jobs", {"jobs": jobs}, patience=300, stub=stub)


def _flat(promise: str, measure: str, jobs: str) -> Bar:
    return Bar(promise, measure, jobs, _OURS, against=_OURS, against_case="100 jobs", at_most=1.2)


def _on(loop: str) -> str:
    return f"{_OURS}, {loop}"


_OURS = "ours (streams, then polls)"
_OTHER_LOOPS = ("uvloop", "trio")

BENCHMARK = Benchmark(
    name="growth",
    title=__doc__ or "",
    baseline=_OURS,
    legs=(
        Leg(_OURS, on("asyncio", _mixed)),
        *(Leg(_on(loop), on(loop, _mixed), (loop,)) for loop in _OTHER_LOOPS),
        Leg("ours, streams only", on("asyncio", _streams)),
        Leg("ours, polls only", on("asyncio", _polls)),
    ),
    cases=tuple(_case(jobs, seconds=20) for jobs in (100, 1000, 10_000)),
    quick=(_case(10, seconds=0.2),),
    columns=(
        Column("cpu_us", "CPU us a job"),
        Column("kb_per_job", "kB a job"),
        Column("requests", "requests a job"),
        Column("wall_s", "wall s"),
        Column("connections", "connections"),
        Column("stub_share", "stub's CPU"),
    ),
    bars=tuple(
        _flat(f"{promise}, of that at 100 jobs", measure, jobs)
        for jobs in ("1,000 jobs", "10,000 jobs")
        for promise, measure in (("CPU a job", "cpu_us"), ("memory a job", "kb_per_job"))
    )
    + tuple(
        Bar(
            f"CPU a job on {loop}, of that on asyncio",
            "cpu_us",
            jobs,
            _on(loop),
            against=_OURS,
            at_most=1.1,
        )
        for loop in _OTHER_LOOPS
        for jobs in ("100 jobs", "1,000 jobs", "10,000 jobs")
    ),
)
