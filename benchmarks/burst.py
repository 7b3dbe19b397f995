"""Bursts: the longest stop of the event loop when many waits for jobs begin at once."""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import APP, ours_at
from benchmarks.loops import on

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work
    from fal_async import AsyncRequestHandle

__all__ = ["BENCHMARK"]

_SUBMITTERS = 50


class _Heartbeat:
    """A task that wakes up every millisecond, and notes the longest delay.

    Attributes:
        longest: The longest time between two wake-ups, in seconds.
        longest_cpu: The most CPU of the thread of the event loop between two wake-ups, in seconds.
            On a busy machine it is less than the time.
        longest_work: The same without the garbage collector.
    """

    def __init__(self) -> None:
        self.longest = self.longest_cpu = self.longest_work = 0.0
        self._collecting = self._collection_began = 0.0
        self.begin()

    def begin(self) -> None:
        """Begin to measure now."""
        self._then, self._cpu_then = time.perf_counter(), time.thread_time()
        self._collecting = 0.0

    def observe_collection(self, phase: str, _: dict[str, int]) -> None:
        """Note the CPU of a collection; a callback of the garbage collector."""
        if phase == "start":
            self._collection_began = time.thread_time()
        else:
            self._collecting += time.thread_time() - self._collection_began

    async def run(self) -> None:
        while True:
            await anyio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - self._then)
            cpu = time.thread_time() - self._cpu_then
            self.longest_cpu = max(self.longest_cpu, cpu)
            self.longest_work = max(self.longest_work, cpu - self._collecting)
            self.begin()


async def _get(work: Work) -> Measures:
    """Wait for jobs that were submitted before."""
    async with ours_at(work.url) as client:
        handles: list[AsyncRequestHandle] = []

        async def submit() -> None:
            while len(handles) < work["calls"]:
                handles.append(await client.submit(APP, {}))

        async with anyio.create_task_group() as tasks:
            for _ in range(_SUBMITTERS):
                tasks.start_soon(submit)
        return await _burst(work, [handle.get for handle in handles[: work["calls"]]])


async def _subscribe(work: Work) -> Measures:
    async with ours_at(work.url) as client:
        await client.subscribe(APP, {})
        return await _burst(work, [partial(client.subscribe, APP, {})] * work["calls"])


async def _sleep(work: Work) -> Measures:
    """Start as many tasks that sleep, which is the part of the caller."""
    return await _burst(work, [partial(anyio.sleep, 5)] * work["calls"])


async def _burst(
    work: Work, calls: Sequence[Callable[[], Coroutine[Any, Any, object]]]
) -> Measures:
    """Begin all calls in one task group; the measurement begins when their tasks are created."""
    heartbeat = _Heartbeat()
    gc.callbacks.append(heartbeat.observe_collection)
    section = work.section()
    with section:
        async with anyio.create_task_group() as beating:
            beating.start_soon(heartbeat.run)
            async with anyio.create_task_group() as tasks:
                for call in calls:
                    tasks.start_soon(call)
                heartbeat.begin()
            beating.cancel_scope.cancel()
    section.units = work["calls"]
    return section.measures() | {
        "stop_s": heartbeat.longest,
        "stop_cpu_s": heartbeat.longest_cpu,
        "stop_work_s": heartbeat.longest_work,
    }


def _case(calls: int, seconds: float) -> Case:
    stub = ("--job-seconds", str(seconds))
    return Case(f"{calls:,} calls", {"calls": calls}, patience=300, stub=stub)


_GET = "handle.get()"
_SUBSCRIBE = "subscribe"
_SLEEP = "tasks that sleep"

BENCHMARK = Benchmark(
    name="burst",
    title=__doc__ or "",
    baseline=_SLEEP,
    legs=(
        Leg(_SLEEP, on("asyncio", _sleep)),
        Leg(_GET, on("asyncio", _get)),
        Leg(_SUBSCRIBE, on("asyncio", _subscribe)),
        Leg("handle.get(), uvloop", on("uvloop", _get), ("uvloop",)),
        Leg("handle.get(), trio", on("trio", _get), ("trio",)),
    ),
    cases=tuple(_case(calls, seconds=5) for calls in (5000, 20_000)),
    quick=(_case(20, seconds=0.2),),
    columns=(
        Column("stop_s", "longest stop, s"),
        Column("stop_cpu_s", "in CPU, s"),
        Column("stop_work_s", "without collections, s"),
        Column("cpu_us", "CPU us a call"),
        Column("wall_s", "wall s"),
        Column("peak_mb", "peak MB"),
    ),
    bars=tuple(
        Bar(f"the longest stop of {leg}, in seconds", "stop_s", "20,000 calls", leg, at_most=0.1)
        for leg in (_GET, _SUBSCRIBE)
    ),
)
