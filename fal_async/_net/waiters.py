"""`Waiter`: the wait of one task for another; `Turns`: tasks that start a few at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from fal_async._net.running_loop import running_loop
from fal_async._net.timers import call_later

if TYPE_CHECKING:
    from trio.lowlevel import Abort, Task

    from fal_async._net.timers import Timer

__all__ = ["Turns", "Waiter"]

#: Number of tasks of a burst that start in one iteration of the event loop.
TASKS_PER_ITERATION: Final = 16


class Waiter:
    """A wait of one task until another wakes it up, or until a time has passed.

    An event and a cancel scope in one. Ten thousand tasks may wait for long, and the garbage
    collector traverses all of their objects. This needs a third of them.

    Attributes:
        is_ready: Whether `wake` was called.
    """

    __slots__ = ("_limit", "_sleeper", "is_ready")

    def __init__(self) -> None:
        self.is_ready = False
        self._sleeper: asyncio.Future[None] | Task | None = None
        self._limit: Timer | None = None

    def wake(self) -> None:
        """Wake up the task, now or when it waits."""
        self.is_ready = True
        self._end_wait()

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
                self._sleeper = future = loop.create_future()
                if timeout is not None:
                    self.set_timeout(timeout)
                await future
            else:
                from trio.lowlevel import current_task, wait_task_rescheduled  # the running loop

                self._sleeper = current_task()
                if timeout is not None:
                    self.set_timeout(timeout)
                await wait_task_rescheduled(self._abort)
        finally:
            limit, self._limit, self._sleeper = self._limit, None, None
            if limit is not None:
                limit.cancel()
        return self.is_ready

    def set_timeout(self, seconds: float) -> None:
        """Set the longest time that the current wait, which has no timeout, still takes."""
        if self._sleeper is not None:
            self._limit = call_later(seconds, self._end_wait)

    def _end_wait(self) -> None:
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is None:
            return
        if isinstance(sleeper, asyncio.Future):
            if not sleeper.done():
                sleeper.set_result(None)
        else:
            from trio.lowlevel import reschedule  # the running loop has imported it

            reschedule(sleeper)

    def _abort(self, _: object) -> Abort:
        from trio.lowlevel import Abort  # the running loop has imported it

        self._sleeper = None
        return Abort.SUCCEEDED


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
