"""Jobs in flight: which of them are watched, and the slots of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from fal_async.batch import monitor
from fal_async.batch.limits import AdjustableSlots
from tests.support.http import gated_echo

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

    from fal_async import AsyncClient
    from fal_async.emulator import Emulator

FIRST, SECOND = "acme/first", "acme/second"


async def test_jobs_that_wait_for_runners_are_not_watched(
    fal: Emulator, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "MAX_UNWATCHED", 60.0)
    gate = fal.gate()
    fal.register(FIRST, gated_echo(gate), concurrency=2)
    rows = [{"n": n} for n in range(40)]
    async with client.batch(FIRST, rows, in_flight=40) as batch:
        await fal.wait_for_async(lambda: fal.count("submit") == 40)
        await fal.wait_for_async(lambda: fal.count("status_stream") == monitor.MIN_WATCHED)
        gate.open()
        assert (await batch.run()).ok == 40


async def test_jobs_may_start_in_another_order(
    fal: Emulator, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "MAX_UNWATCHED", 0.05)
    gate = fal.gate()
    fal.register(FIRST, gated_echo(gate), concurrency=1)

    @fal.endpoint(SECOND)
    def second(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    def select(row: Mapping[str, Any]) -> str:
        return FIRST if row["n"] < 20 else SECOND

    rows = [{"n": n} for n in range(25)]
    async with client.batch(select, rows, in_flight=25) as batch:
        done = [(await anext(batch)).index for _ in range(5)]
        gate.open()
        assert sorted(done) == [20, 21, 22, 23, 24]
        assert (await batch.run()).ok == 25


async def test_slots_are_assigned_in_order() -> None:
    slots = AdjustableSlots(1)
    order: list[int] = []

    async def acquire(number: int) -> None:
        async with slots:
            order.append(number)

    await slots.acquire()
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(acquire, number)
        await anyio.wait_all_tasks_blocked()
        assert slots.waiting == 3
        slots.release()
    assert len(order) == 3
    assert await slots.acquire(0)


async def test_more_slots_end_waits() -> None:
    slots = AdjustableSlots(1)
    await slots.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(slots.acquire)
        await anyio.wait_all_tasks_blocked()
        slots.total = 2
    slots.total = 1
    slots.release()
    assert not await slots.acquire(0)  # one more is in use than there are
    slots.release()
    assert await slots.acquire(0)


async def test_cancelled_waits_leave_their_slots() -> None:
    slots = AdjustableSlots(1)

    async def hold() -> None:
        async with slots:
            await anyio.sleep_forever()

    await slots.acquire()
    for is_assigned in (False, True):
        async with anyio.create_task_group() as group:
            group.start_soon(hold)
            await anyio.wait_all_tasks_blocked()
            if is_assigned:  # at the moment of the cancellation
                slots.release()
            group.cancel_scope.cancel()
    assert slots.waiting == 0
    assert await slots.acquire(0)
