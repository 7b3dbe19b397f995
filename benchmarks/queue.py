"""Queue jobs: the cost of waiting for a batch, and the delay of a result."""

from __future__ import annotations

import time
from array import array
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import APP, KEY, fal_client_at, ours_at
from benchmarks.loops import on
from benchmarks.work import percentile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK"]

_ARGUMENTS = {"prompt": "a lighthouse at dawn", "seed": 7}
_ROUTES = ("submit", "status/stream", "status", "result")


async def _fal_client(work: Work) -> Measures:
    client = fal_client_at(work.url).AsyncClient(KEY)
    return await _batch(partial(client.subscribe, APP, _ARGUMENTS), work)


async def _ours(work: Work, max_streams: int | None = None) -> Measures:
    from fal_async import Limits

    limits = Limits() if max_streams is None else Limits(max_streams=max_streams)
    async with ours_at(work.url, limits=limits) as client:
        return await _batch(partial(client.subscribe, APP, _ARGUMENTS), work)


async def _ours_streaming(work: Work) -> Measures:
    return await _ours(work, max_streams=work["jobs"])


async def _ours_polling(work: Work) -> Measures:
    return await _ours(work, max_streams=0)


async def _batch(subscribe: Callable[[], Awaitable[Mapping[str, Any]]], work: Work) -> Measures:
    """Run all jobs at once. Each result has the end time of its job on the shared clock."""
    await subscribe()
    lags = array("d")

    async def job() -> None:
        result = await subscribe()
        lags.append(time.monotonic() - result["ended"])

    section = work.section()
    with section:
        async with anyio.create_task_group() as tasks:
            for _ in range(work["jobs"]):
                tasks.start_soon(job)
    section.units = work["jobs"]
    requests = {route: section.calls(route) for route in _ROUTES}
    return (
        section.measures()
        | requests
        | {
            "requests": sum(requests.values()) / work["jobs"],
            "lag_p50_s": percentile(lags, 0.5),
            "lag_p99_s": percentile(lags, 0.99),
        }
    )


def _case(jobs: int, *, seconds: float = 1, patience: float = 120) -> Case:
    stub = ("--job-seconds", str(seconds))
    return Case(f"{jobs:,} jobs", {"jobs": jobs}, patience=patience, stub=stub)


_OFFICIAL = "fal_client"
_OURS = "ours (streams, then polls)"


def _bar(promise: str, measure: str, jobs: int, at_most: float) -> Bar:
    case = f"{jobs:,} jobs"
    return Bar(promise, measure, case, _OURS, against=_OFFICIAL, at_most=at_most)


BENCHMARK = Benchmark(
    name="queue",
    title=__doc__ or "",
    baseline=_OFFICIAL,
    legs=(
        Leg(_OFFICIAL, on("asyncio", _fal_client), ("fal_client",)),
        Leg(_OURS, on("asyncio", _ours)),
        Leg("ours, streams only", on("asyncio", _ours_streaming)),
        Leg("ours, polls only", on("asyncio", _ours_polling)),
    ),
    cases=(_case(200), _case(400), _case(1000, patience=600), _case(5000, patience=300)),
    quick=(_case(20, seconds=0.2),),
    columns=(
        Column("wall_s", "wall s"),
        Column("requests", "requests a job"),
        Column("cpu_us", "CPU us a job"),
        Column("peak_mb", "peak MB"),
        Column("lag_p50_s", "lag p50 s"),
        Column("lag_p99_s", "lag p99 s"),
        Column("connections", "connections"),
        Column("stub_share", "stub's CPU"),
    ),
    bars=(
        Bar("lag p50, in seconds", "lag_p50_s", "200 jobs", _OURS, at_most=0.05),
        _bar("wall, of fal_client's", "wall_s", 400, 0.05),
        _bar("CPU a job, of fal_client's", "cpu_us", 400, 0.03),
        _bar("wall, of fal_client's", "wall_s", 1000, 0.01),
        Bar("requests a job", "requests", "1,000 jobs", _OURS, at_most=3.05),
        Bar("jobs completed", "units", "5,000 jobs", _OURS, at_least=5000),
    ),
)
