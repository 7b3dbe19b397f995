"""Waiters: the wait of one task for another."""

from __future__ import annotations

import anyio

from fal_async._net.waiters import Waiter


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
    assert waiter.is_awake


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
    assert waiter.is_awake
