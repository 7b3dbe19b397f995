"""Waiters, and the turns of tasks that are created in one go."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fal_async._net.waiters import TASKS_PER_ITERATION, Turns, Waiter


async def test_waiter_is_woken_up() -> None:
    waiter = Waiter()
    outcomes: list[bool] = []

    async def wait() -> None:
        outcomes.append(await waiter.wait())

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not outcomes
        waiter.wake()
    assert outcomes == [True]
    assert waiter.is_ready


async def test_waiter_that_is_awake_does_not_wait() -> None:
    waiter = Waiter()
    waiter.wake()
    waiter.wake()
    assert await waiter.wait()
    assert await waiter.wait(0.001)


async def test_waiter_may_wait_again_after_a_timeout() -> None:
    waiter = Waiter()
    assert not await waiter.wait(0)
    assert not await waiter.wait(0.001)
    waiter.wake()
    assert await waiter.wait(0.001)


async def test_timeout_may_be_set_while_a_task_waits() -> None:
    waiter = Waiter()
    outcomes: list[bool] = []

    async def wait() -> None:
        outcomes.append(await waiter.wait())

    waiter.set_timeout(0)  # nothing waits yet
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        waiter.set_timeout(0.001)
    assert outcomes == [False]


async def test_cancelled_waiter_may_be_awake() -> None:
    waiter = Waiter()
    async with anyio.create_task_group() as group:
        group.start_soon(waiter.wait, 60)
        await anyio.wait_all_tasks_blocked()
        waiter.wake()
        group.cancel_scope.cancel()
    assert waiter.is_ready


async def test_burst_of_tasks_starts_a_few_at_a_time() -> None:
    turns = Turns()
    started: list[int] = []
    others: list[int] = []

    async def start(number: int) -> None:
        await turns.wait()
        started.append(number)

    async def other() -> None:
        while len(started) < 10 * TASKS_PER_ITERATION:
            others.append(len(started))
            await checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(10 * TASKS_PER_ITERATION):
            group.start_soon(start, number)
        group.start_soon(other)
    assert sorted(started) == list(range(10 * TASKS_PER_ITERATION))
    steps = [after - before for before, after in pairwise(others)]
    assert max(steps) <= 2 * TASKS_PER_ITERATION  # trio shuffles the tasks of an iteration


@pytest.mark.parametrize("count", [1, 1000])
async def test_cancelled_tasks_take_no_turn(count: int) -> None:
    turns = Turns()
    for _ in range(TASKS_PER_ITERATION):
        await turns.wait()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(turns.wait)
            scope.cancel()
    for _ in range(3 * TASKS_PER_ITERATION):
        await turns.wait()
