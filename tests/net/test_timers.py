"""Timers on every event loop, and those of trio until the end of its run."""

from __future__ import annotations

import anyio
import pytest
import trio

from fal_async._net.background import spawn
from fal_async._net.timers import call_later
from fal_async._net.trio_service import KEPT_TIMERS, TrioService
from fal_async._net.waiters import Waiter


async def test_timers_are_due_in_order() -> None:
    due: list[int] = []
    last = anyio.Event()
    call_later(0.03, last.set)
    call_later(0.02, lambda: due.append(2))
    call_later(0.01, lambda: due.append(1))
    call_later(0, lambda: call_later(0, lambda: due.append(0)))
    with anyio.fail_after(5):
        await last.wait()
    assert due == [0, 1, 2]


async def test_cancelled_timer_makes_no_call() -> None:
    due: list[str] = []
    last = anyio.Event()
    cancelled = call_later(0.001, lambda: due.append("cancelled"))
    made = call_later(0.002, lambda: due.append("made"))
    call_later(0.003, last.set)
    cancelled.cancel()
    cancelled.cancel()
    with anyio.fail_after(5):
        await last.wait()
    made.cancel()
    assert due == ["made"]


def test_cancelled_timers_are_dropped() -> None:
    async def main() -> None:
        service = TrioService.current(trio.lowlevel.current_trio_token())
        kept = service.call_later(60, list)
        for _ in range(10 * KEPT_TIMERS):
            service.call_later(60, list).cancel()
        assert len(service._timers) <= KEPT_TIMERS + 2
        kept.cancel()

    trio.run(main)


@pytest.mark.parametrize("is_used", [False, True])
def test_timers_of_trio_are_due_while_background_tasks_end(*, is_used: bool) -> None:
    outcomes: list[object] = []

    async def work() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
        outcomes.append(await Waiter().wait(0.01))
        call_later(60, list).cancel()
        outcomes.append(await Waiter().wait(0.01))

    async def main() -> None:
        spawn(work)
        if is_used:
            await Waiter().wait(0.001)

    trio.run(main)
    assert outcomes == [False, False]


def test_run_of_trio_ends_without_its_timers() -> None:
    async def main() -> None:
        call_later(3600, list).cancel()
        call_later(3600, list)

    trio.run(main)
