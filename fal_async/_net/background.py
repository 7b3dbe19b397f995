"""Work that belongs to the event loop, and not to the task or the block that started it.

A task of the caller's ends with its cancel scope, and each native ``cancel()`` of asyncio breaks
off one more of its waits. What has to be finished although the caller is gone is done by a
`BackgroundTask`. It ends with its work, with `BackgroundTask.cancel`, or with its event loop:

- asyncio, uvloop: ``asyncio.run`` (like every runner that follows it) cancels all tasks, waits for
  them, and finalizes async generators. Background tasks are not among the tasks that are cancelled
  (``asyncio.all_tasks`` does not list them). An async generator per loop waits for them at the
  end. A loop that is closed without ``shutdown_asyncgens`` leaves them unfinished.
- trio: ``trio.run`` cancels its system tasks once the main task has ended, and waits for them.

In both cases the work has its grace period to finish, is cancelled after that, and is waited for.
Connections and other values per loop (`PerLoop`) are closed later. A forked process does not
inherit background tasks.
"""

from __future__ import annotations

import contextlib
import logging
import os
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVarTuple

import anyio
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextvars import Context

__all__ = ["BackgroundTask", "finish", "spawn", "step"]

Ts = TypeVarTuple("Ts")
_log = logging.getLogger("fal_async")

#: How long background work may go on once its event loop ends, in seconds.
GRACE: Final = 5.0


class BackgroundTask:
    """Work that an event loop does for nobody in particular; made by `spawn`.

    Attributes:
        error: The exception that the work raised, which was logged; ``None`` if it raised none.
    """

    def __init__(self, grace: float | Callable[[], float]) -> None:
        self.error: BaseException | None = None
        self._grace = grace
        self._scope = anyio.CancelScope(shield=True)
        self._done = anyio.Event()
        self._ending = False
        self._loop: Any = current_token().native_token

    @property
    def done(self) -> bool:
        """Whether the work has ended: returned, raised or been cancelled."""
        return self._done.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether the work was cut short by `cancel` or by the end of its loop."""
        return self._scope.cancelled_caught

    def cancel(self) -> None:
        """Cancel the work, as a cancel scope does."""
        self._scope.cancel()

    def cancel_soon(self) -> None:
        """Cancel the work on its event loop; on any thread, and also while objects are freed."""
        schedule = getattr(self._loop, "call_soon_threadsafe", None) or self._loop.run_sync_soon
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the work with it
            schedule(self.cancel)

    async def wait(self) -> None:
        """Wait until the work has ended; its exception is not raised."""
        await self._done.wait()

    async def run(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do the work in the current task; raises nothing but what ends the task itself."""
        try:
            with self._scope:
                await work()
        except (GeneratorExit, anyio.get_cancelled_exc_class()):
            raise
        except BaseException as error:  # noqa: BLE001 -- raised again on the waiting thread
            self.error = error
            _log.warning("background work failed: %r", error, exc_info=error)
        finally:
            self._done.set()

    def end(self) -> None:
        """Start the grace period, since the loop is about to end."""
        if not self._ending:
            self._ending = True
            grace = self._grace() if callable(self._grace) else self._grace
            self._scope.deadline = min(self._scope.deadline, anyio.current_time() + grace)


def spawn(
    work: Callable[[*Ts], Awaitable[object]],
    *args: *Ts,
    grace: float | Callable[[], float] = GRACE,
    context: Context | None = None,
) -> BackgroundTask:
    """Start work that goes on whatever becomes of the caller.

    Args:
        work: A coroutine function. An exception that it raises is logged and kept.
        args: Its arguments.
        grace: How long the work may go on once its event loop ends, in seconds, or a function that
            is then called for it.
        context: The context variables of the work; ``None`` copies those of the caller.
    """
    loop: Any = current_token().native_token
    task = BackgroundTask(grace)
    context = copy_context() if context is None else context
    if hasattr(loop, "create_task"):
        _spawn_on_asyncio(loop, task, lambda: work(*args), context)
    else:
        from trio.lowlevel import spawn_system_task  # the loop that is running

        spawn_system_task(_system_task, task, lambda: work(*args), context=context)
    return task


async def finish(loop: object) -> None:
    """Give the background tasks of a loop that ends their grace period, and wait for them."""
    while (crew := _crews.get(loop)) is not None:
        crew.ending = True
        for task in crew.tasks:
            task.end()
        await next(iter(crew.tasks)).wait()


# On trio


async def _system_task(task: BackgroundTask, work: Callable[[], Awaitable[object]]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(task.run, work)
        try:
            await task.wait()
        except BaseException:
            task.end()
            raise


# On asyncio


class _Crew:
    """The background tasks of one loop, while there are some."""

    def __init__(self, keeper: AsyncGenerator[None, None]) -> None:
        self.tasks: dict[BackgroundTask, asyncio.Task[None]] = {}
        self.ending = False
        self.keeper = keeper


#: By event loop. A task refers to its loop, so only an empty crew may be left to itself.
_crews: dict[object, _Crew] = {}
#: What a forked process has inherited, which only its own loop could have closed.
_out_of_reach: list[_Crew] = []


def _spawn_on_asyncio(
    loop: asyncio.AbstractEventLoop,
    task: BackgroundTask,
    work: Callable[[], Awaitable[object]],
    context: Context,
) -> None:
    import asyncio  # the loop that is running

    _drop_closed_loops()
    crew = _crews.get(loop)
    if crew is None:
        crew = _crews[loop] = _Crew(_keep(loop))
        step(crew.keeper.asend(None))
    if crew.ending:
        task.end()

    async def run() -> None:
        try:
            await task.run(work)
        finally:
            _leave(loop, task)

    native = asyncio.Task(run(), loop=loop, context=context)
    # What ends a program cancels all tasks, once or more often, and its own wait for this one is
    # elsewhere; so does nobody take it for a task of the program that was left behind.
    asyncio._unregister_task(native)
    native._log_destroy_pending = False  # type: ignore[attr-defined]
    crew.tasks[task] = native


async def _keep(loop: object) -> AsyncGenerator[None, None]:
    """Wait for the crew when the loop finalizes this generator."""
    try:
        yield
    finally:
        await finish(loop)


def _leave(loop: object, task: BackgroundTask) -> None:
    crew = _crews.get(loop)
    if crew is None:
        return
    crew.tasks.pop(task, None)
    if not crew.tasks:
        del _crews[loop]
        if not crew.ending:
            step(crew.keeper.aclose())


def _drop_closed_loops() -> None:
    for loop in [loop for loop in _crews if getattr(loop, "is_closed", bool)()]:
        _crews.pop(loop)


def step(awaitable: Awaitable[Any]) -> None:
    """Run an awaitable that does not wait, without the help of a loop."""
    with contextlib.suppress(StopIteration, StopAsyncIteration):
        awaitable.__await__().send(None)


def _start_anew() -> None:
    _out_of_reach.extend(_crews.values())
    _crews.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
