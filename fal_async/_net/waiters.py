"""`Waiter`: the wait of one task for another; `Turns`: tasks that start a few at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import anyio

from fal_async._net.event_loops import running_loop

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["Turns", "Waiter"]

#: Number of tasks of a burst that start in one iteration of the event loop.
TASKS_PER_ITERATION: Final = 16


class Waiter:
    """A wait of one task until another wakes it up, or until a time has passed.

    An event and a cancel scope in one. Ten thousand tasks may wait for long, and the garbage
    collector traverses all of their objects. On asyncio this needs a third of them.

    Attributes:
        is_ready: Whether `wake` was called.
    """

    __slots__ = ("_limit", "_ready", "is_ready")

    def __init__(self) -> None:
        self.is_ready = False
        self._ready: asyncio.Future[None] | anyio.Event | None = None
        self._limit: TimerHandle | anyio.CancelScope | None = None

    def wake(self) -> None:
        """Wake up the task, now or when it waits."""
        self.is_ready = True
        if isinstance(self._ready, anyio.Event):
            self._ready.set()
        elif self._ready is not None:
            _complete(self._ready)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until `wake` was called; return false if the time has passed before.

        Args:
            timeout: The longest time to wait, in seconds; ``None`` disables the timeout.
        """
        if self.is_ready:
            return True
        loop = running_loop()
        try:
            if isinstance(loop, asyncio.AbstractEventLoop):
                self._ready = loop.create_future()
                if timeout is not None:
                    self.set_timeout(timeout)
                await self._ready
            else:
                self._ready = anyio.Event()
                with anyio.CancelScope() as self._limit:
                    if timeout is not None:
                        self.set_timeout(timeout)
                    await self._ready.wait()
        finally:
            limit, self._limit, self._ready = self._limit, None, None
            if isinstance(limit, asyncio.TimerHandle):
                limit.cancel()
        return self.is_ready

    def set_timeout(self, seconds: float) -> None:
        """Set the longest time that the current wait, which has no timeout, still takes."""
        if isinstance(self._limit, anyio.CancelScope):
            self._limit.deadline = anyio.current_time() + seconds
        elif isinstance(self._ready, asyncio.Future):
            loop = self._ready.get_loop()
            self._limit = loop.call_later(seconds, _complete, self._ready)


def _complete(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Turns:
    """Lets the tasks of a burst start a few at a time, so that the event loop does other work.

    All tasks that are created in one go take their first step in one iteration of the event loop.
    The first steps of thousands of calls would stop it for seconds.
    """

    def __init__(self) -> None:
        self._left = TASKS_PER_ITERATION
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._is_scheduled = False

    async def wait(self) -> None:
        """Wait for a turn, if many tasks have had theirs in this iteration of the event loop."""
        if self._left:
            self._left -= 1
            return
        self._schedule()
        waiter = Waiter()
        self._waiters[waiter] = None
        try:
            await waiter.wait()
        except BaseException:
            self._waiters.pop(waiter, None)
            raise

    def _schedule(self) -> None:
        if not self._is_scheduled:
            loop: Any = running_loop()
            (getattr(loop, "call_soon", None) or loop.run_sync_soon)(self._next)
            self._is_scheduled = True

    def _next(self) -> None:
        self._is_scheduled = False
        self._left = TASKS_PER_ITERATION
        while self._left and self._waiters:
            self._left -= 1
            self._waiters.popitem(last=False)[0].wake()
        if not self._left:
            self._schedule()
