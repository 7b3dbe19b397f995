"""Legs on event loops and threads, with a number of calls in flight."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.benchmark import Measures
    from benchmarks.work import Section, Work

__all__ = ["LOOPS", "keep_in_flight", "keep_threads_in_flight", "on"]

#: The event loops: backend of anyio, and its options.
LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


def on(loop: str, measure: Callable[[Work], Awaitable[Measures]]) -> Callable[[Work], Measures]:
    """Return a leg that runs on an event loop."""
    backend, options = LOOPS[loop]

    def run(work: Work) -> Measures:
        return anyio.run(measure, work, backend=backend, backend_options=options)

    return run


async def keep_in_flight(call: Callable[[], Awaitable[object]], work: Work) -> Section:
    """Make calls with ``in_flight`` callers, each of which repeats after its response.

    It ends after ``calls`` calls, or after ``milliseconds`` when the calls under way are done.
    """
    async with anyio.create_task_group() as warming:
        for _ in range(work["in_flight"]):
            warming.start_soon(_once, call)
    section = work.section()
    left = work["calls"]

    async def caller() -> None:
        nonlocal left
        while left > 0 and (then := time.perf_counter()) < deadline:
            left -= 1
            await call()
            section.latencies.append(time.perf_counter() - then)

    with section:
        deadline = time.perf_counter() + work["milliseconds"] / 1000
        async with anyio.create_task_group() as callers:
            for _ in range(work["in_flight"]):
                callers.start_soon(caller)
    return section


async def _once(call: Callable[[], Awaitable[object]]) -> None:
    await call()


def keep_threads_in_flight(call: Callable[[], object], work: Work) -> Section:
    """Make calls like `keep_in_flight`, with a thread for each caller."""
    _in_threads(work["in_flight"], call)
    section = work.section()
    with section:
        left = iter(range(work["calls"]))
        deadline = time.perf_counter() + work["milliseconds"] / 1000

        def caller() -> None:
            while (then := time.perf_counter()) < deadline and next(left, None) is not None:
                call()
                section.latencies.append(time.perf_counter() - then)

        _in_threads(work["in_flight"], caller)
    return section


def _in_threads(count: int, target: Callable[[], object]) -> None:
    threads = [threading.Thread(target=target) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
