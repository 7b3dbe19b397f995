"""Background tasks: independence of their caller and the end of the event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from fal_async._net import background
from fal_async._net.background import BackgroundTask, spawn
from fal_async._net.event_loops import PerLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Run = Callable[[Callable[[], Awaitable[None]]], None]


def on_asyncio(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main(), debug=True)  # type: ignore[arg-type]  # all are coroutine functions


def on_uvloop(main: Callable[[], Awaitable[None]]) -> None:
    import uvloop

    uvloop.run(main())  # type: ignore[arg-type]  # all are coroutine functions


def on_trio(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main)


RUNS = [on_asyncio, on_trio]
if sys.platform != "win32":
    RUNS.insert(1, on_uvloop)


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest) -> Run:
    """Return a function that runs a program in a new event loop."""
    chosen: Run = request.param
    return chosen


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    yield
    assert background._asyncio_tasks == {}


async def test_task_survives_the_cancel_of_its_caller() -> None:
    go_on = anyio.Event()
    finished: list[str] = []
    tasks: list[BackgroundTask] = []

    async def work() -> None:
        await go_on.wait()
        finished.append("work")

    with anyio.CancelScope() as scope:
        tasks.append(spawn(work))
        scope.cancel()
        await anyio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    (task,) = tasks
    assert not task.done
    go_on.set()
    await task.wait()
    assert (finished, task.done, task.cancelled, task.error) == (["work"], True, False, None)


@pytest.mark.parametrize("run_it", [run for run in RUNS if run is not on_trio])
def test_task_survives_asyncio_cancel_of_all(run_it: Run) -> None:
    async def main() -> None:
        go_on = anyio.Event()
        task = spawn(go_on.wait)
        other = asyncio.create_task(anyio.sleep_forever())
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
            for each in asyncio.all_tasks() - {asyncio.current_task()}:
                each.cancel()
        await asyncio.wait([other])
        assert not task.done
        go_on.set()
        with anyio.fail_after(5):
            await task.wait()
        assert (other.cancelled(), task.cancelled) == (True, False)

    run_it(main)


async def test_exception_is_logged_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        raise LookupError(number)

    with caplog.at_level(logging.WARNING, "fal_async"):
        task = spawn(fail, 7)
        await task.wait()

    assert isinstance(task.error, LookupError)
    assert [record.getMessage() for record in caplog.records] == [
        "A background task failed: LookupError(7)"
    ]


async def test_system_exit_does_not_end_the_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def exit_program() -> None:
        raise SystemExit(3)

    task = spawn(exit_program)
    await task.wait()
    assert isinstance(task.error, SystemExit)
    assert len(caplog.records) == 1


def test_task_that_another_starts_at_the_end_has_a_grace_period(run: Run) -> None:
    tasks: list[BackgroundTask] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            tasks.append(spawn(anyio.sleep_forever, grace_period=0.01))
            with anyio.CancelScope(shield=True):
                await tasks[0].wait()

    async def main() -> None:
        spawn(work, grace_period=0.01)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()

    run(main)
    assert [task.cancelled for task in tasks] == [True]


async def test_task_can_be_cancelled() -> None:
    task = spawn(anyio.sleep_forever)
    await anyio.lowlevel.checkpoint()
    task.cancel()
    task.cancel()
    await task.wait()
    assert (task.cancelled, task.error) == (True, None)


async def test_task_copies_the_context_of_its_caller() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="none")
    seen: list[str] = []

    async def work() -> None:
        seen.append(variable.get())
        variable.set("theirs")

    token = variable.set("mine")
    await spawn(work).wait()
    assert (seen, variable.get()) == (["mine"], "mine")
    variable.reset(token)


async def test_deadlines_and_groups_work_in_tasks() -> None:
    async def work() -> None:
        with anyio.move_on_after(0.01) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
        assert scope.cancelled_caught

    task = spawn(work)
    await task.wait()
    assert task.error is None


def test_tasks_finish_when_the_loop_ends(run: Run) -> None:
    finished: list[str] = []

    async def more() -> None:
        await anyio.sleep(0.02)
        finished.append("more")

    async def work() -> None:
        await anyio.sleep(0.02)
        finished.append("work")
        spawn(more)

    async def main() -> None:
        spawn(work)
        await anyio.lowlevel.checkpoint()

    run(main)
    assert finished == ["work", "more"]


def test_pending_tasks_run_when_the_loop_ends(run: Run) -> None:
    finished: list[int] = []

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        finished.append(1)

    async def main() -> None:
        spawn(work)

    run(main)
    assert finished == [1]


def test_slow_task_is_cancelled_after_grace(run: Run) -> None:
    tasks: list[BackgroundTask] = []
    cleaned: list[int] = []

    async def work(number: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append(number)

    async def main() -> None:
        tasks.extend([spawn(work, 0, grace_period=0.01), spawn(work, 1, grace_period=lambda: 0.02)])
        await anyio.lowlevel.checkpoint()

    run(main)
    assert cleaned == [0, 1]
    assert [task.cancelled for task in tasks] == [True, True]


def test_failing_program_exits_normally(run: Run) -> None:
    finished: list[int] = []

    async def work() -> None:
        await anyio.sleep(0.02)
        finished.append(1)

    async def main() -> None:
        spawn(work)
        raise LookupError

    with pytest.raises(LookupError):
        run(main)
    assert finished == [1]


def test_loop_values_are_closed_after_tasks(run: Run) -> None:
    order: list[str] = []
    values = PerLoop(lambda: order, close=partial(_note, "closed"))

    async def work() -> None:
        await anyio.sleep(0.02)
        values.get().append("worked")

    async def main() -> None:
        values.get()
        spawn(work)

    run(main)
    assert order == ["worked", "closed"]


def _note(event: str, order: list[str]) -> None:
    order.append(event)


def test_abandoned_loop_emits_no_warnings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        spawn(anyio.sleep_forever)
        await anyio.lowlevel.checkpoint()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    asyncio.run(_work_once())
    assert caplog.records == []


async def _work_once() -> None:
    await spawn(anyio.lowlevel.checkpoint).wait()
