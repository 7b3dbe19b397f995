"""Background tasks, which outlive the task and the block that started them.

A task of the caller ends with its cancel scope, and each native ``cancel()`` of asyncio interrupts
another of its waits. A `BackgroundTask` does work that must be finished although the caller has
ended. It ends with its work, with `BackgroundTask.cancel`, or with its event loop:

- asyncio, uvloop: ``asyncio.run`` (like every runner that follows it) cancels all tasks, waits for
  them, and finalizes async generators. Background tasks are not among the tasks that it cancels
  (``asyncio.all_tasks`` does not list them). One async generator per loop waits for them at the
  end. They do not finish if a loop is closed without ``shutdown_asyncgens``.
- trio: ``trio.run`` cancels its system tasks once the main task has ended, and waits for them.
  Background tasks are shielded, and one of the system tasks tells them of the end.

In both cases the work has a grace period to finish, and is cancelled after it. Connections and
other values per loop (`PerLoop`) are closed later. A forked process does not inherit background
tasks.
"""

from __future__ import annotations

import contextlib
import logging
import os
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVarTuple

import anyio

from fal_async._net.running_loop import running_loop
from fal_async._net.trio_service import TrioService

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextvars import Context

__all__ = ["BackgroundTask", "finish", "run_nowait", "spawn"]

Ts = TypeVarTuple("Ts")
_log = logging.getLogger("fal_async")

#: Time that background work has to finish once its event loop ends, in seconds.
GRACE_PERIOD: Final = 5.0


class BackgroundTask:
    """Work that an event loop does in the background; created by `spawn`.

    Attributes:
        error: The exception that the work raised, which was logged; ``None`` if it raised none.
    """

    def __init__(self, loop: Any, grace_period: float | Callable[[], float]) -> None:
        self.error: BaseException | None = None
        self._grace_period = grace_period
        self._scope = anyio.CancelScope(shield=True)
        self._done = anyio.Event()
        self._ending = False
        self._loop = loop

    @property
    def done(self) -> bool:
        """True once the work has returned, raised or been cancelled."""
        return self._done.is_set()

    @property
    def cancelled(self) -> bool:
        """True if the work was interrupted by `cancel` or by the end of its loop."""
        return self._scope.cancelled_caught

    def cancel(self) -> None:
        """Cancel the work, as a cancel scope does."""
        self._scope.cancel()

    def cancel_soon(self) -> None:
        """Cancel the work on its event loop; safe in any thread and in finalizers."""
        schedule = getattr(self._loop, "call_soon_threadsafe", None) or self._loop.run_sync_soon
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the work with it
            schedule(self.cancel)

    async def wait(self) -> None:
        """Wait until the work has ended. Its exception is not raised."""
        await self._done.wait()

    async def run(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do the work in the current task; raise only exceptions that end the task itself."""
        try:
            with self._scope:
                await work()
        except (GeneratorExit, anyio.get_cancelled_exc_class()):
            raise
        except BaseException as error:  # noqa: BLE001 -- the caller may raise it
            self.error = error
            _log.warning("A background task failed: %r", error, exc_info=error)
        finally:
            self._done.set()

    def end(self) -> None:
        """Start the grace period, since the loop is about to end."""
        if not self._ending:
            self._ending = True
            period = self._grace_period() if callable(self._grace_period) else self._grace_period
            self._scope.deadline = min(self._scope.deadline, anyio.current_time() + period)


def spawn(
    work: Callable[[*Ts], Awaitable[object]],
    *args: *Ts,
    grace_period: float | Callable[[], float] = GRACE_PERIOD,
    context: Context | None = None,
) -> BackgroundTask:
    """Start work that continues when the caller ends.

    Args:
        work: A coroutine function. An exception that it raises is logged and kept.
        args: Its arguments.
        grace_period: Time that the work has to finish once its event loop ends, in seconds, or a
            function that returns it at that moment.
        context: The context variables of the work; ``None`` copies those of the caller.
    """
    loop: Any = running_loop()
    task = BackgroundTask(loop, grace_period)
    context = copy_context() if context is None else context
    if hasattr(loop, "create_task"):
        _spawn_on_asyncio(loop, task, lambda: work(*args), context)
    else:
        _spawn_on_trio(loop, task, lambda: work(*args), context)
    return task


def _spawn_on_trio(
    token: object, task: BackgroundTask, work: Callable[[], Awaitable[object]], context: Context
) -> None:
    from trio.lowlevel import spawn_system_task  # the running loop has imported it

    service = TrioService.current(token)
    service.add_on_end(task.end)

    async def run() -> None:
        try:
            await task.run(work)
        finally:
            service.remove_on_end(task.end)

    spawn_system_task(run, context=context)


class _AsyncioTasks:
    """The background tasks of one asyncio loop, while there are any."""

    def __init__(self, finalizer: AsyncGenerator[None, None]) -> None:
        self.tasks: dict[BackgroundTask, asyncio.Task[None]] = {}
        self.ending = False
        self.finalizer = finalizer


#: By event loop. A task refers to its loop, so loops without tasks are removed.
_asyncio_tasks: dict[object, _AsyncioTasks] = {}
#: Tasks that a forked process has inherited. Only their own loop could have closed them.
_inherited: list[_AsyncioTasks] = []


def _spawn_on_asyncio(
    loop: asyncio.AbstractEventLoop,
    task: BackgroundTask,
    work: Callable[[], Awaitable[object]],
    context: Context,
) -> None:
    import asyncio  # the running loop has imported it

    for closed in [other for other in _asyncio_tasks if getattr(other, "is_closed", bool)()]:
        del _asyncio_tasks[closed]
    running = _asyncio_tasks.get(loop)
    if running is None:
        running = _asyncio_tasks[loop] = _AsyncioTasks(_finish_on_shutdown(loop))
        run_nowait(running.finalizer.asend(None))
    if running.ending:
        task.end()

    async def run() -> None:
        try:
            await task.run(work)
        finally:
            # Looked up, since a reference would make a cycle.
            if (tasks := _asyncio_tasks.get(loop)) is not None:
                tasks.tasks.pop(task, None)
                if not tasks.tasks:
                    del _asyncio_tasks[loop]
                    if not tasks.ending:
                        run_nowait(tasks.finalizer.aclose())

    native = asyncio.Task(run(), loop=loop, context=context)
    # The end of a program cancels all registered tasks, possibly several times. This task must
    # finish. It is also no forgotten task of the program, which asyncio would warn about.
    asyncio._unregister_task(native)
    native._log_destroy_pending = False  # type: ignore[attr-defined]  # not in typeshed
    running.tasks[task] = native


async def _finish_on_shutdown(loop: object) -> AsyncGenerator[None, None]:
    """Wait for the background tasks when the loop finalizes this generator."""
    try:
        yield
    finally:
        await finish(loop)


async def finish(loop: object) -> None:
    """Give the background tasks of an ending loop their grace period, and wait for them."""
    while (running := _asyncio_tasks.get(loop)) is not None:
        running.ending = True
        for task in running.tasks:
            task.end()
        await next(iter(running.tasks)).wait()


def run_nowait(awaitable: Awaitable[Any]) -> None:
    """Run an awaitable that does not wait, without an event loop."""
    with contextlib.suppress(StopIteration, StopAsyncIteration):
        awaitable.__await__().send(None)


def _reset_after_fork() -> None:
    _inherited.extend(_asyncio_tasks.values())
    _asyncio_tasks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
