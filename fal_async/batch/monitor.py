"""`JobMonitor`: waits for the jobs in flight, and knows how many of them run."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from fal_async.batch.limits import AdjustableSlots
from fal_async.types import InProgress, Queued

if TYPE_CHECKING:
    from fal_async._client.handle import AsyncRequestHandle
    from fal_async._dispatch.call_state import CallState
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.limits import FixedLimit
    from fal_async.types import Status

__all__ = ["JobMonitor"]

#: The number of jobs that are watched at first.
MIN_WATCHED: Final = 16
#: The number of jobs that are watched, as a multiple of those that were seen running at once.
EXCESS: Final = 1.25
#: The longest time that a job is not watched because earlier ones are, in seconds. The platform may
#: start jobs in another order.
MAX_UNWATCHED: Final = 2.0


class JobMonitor:
    """Waits for jobs, and counts those that runners execute.

    The platform starts jobs in the order in which they were submitted. So only the earliest are
    watched: all that run, and some more, which show whether others could run. The platform reports
    each step of a job in its queue, which would cost as much as the rest of a short job.

    Args:
        dispatcher: Executes the requests.
        limit: The limit on the jobs in flight, which learns from them.
    """

    def __init__(self, dispatcher: Dispatcher, limit: FixedLimit) -> None:
        self._dispatcher = dispatcher
        self._limit = limit
        self._watched = AdjustableSlots(MIN_WATCHED)
        self._statuses: Counter[type[Status] | None] = Counter()

    async def wait(self, handle: AsyncRequestHandle) -> Any:
        """Wait until a job has ended, and return its output.

        Raises:
            FalClientError: The job has failed, or its outcome cannot be fetched.
        """
        dispatcher = self._dispatcher
        with dispatcher.call("get", handle.application, timeout=None, handle=handle) as state:
            await self._watch(handle, state)
            async with self._limit.outputs:
                return await handle._fetch_result(state.last, None)

    async def _watch(self, handle: AsyncRequestHandle, state: CallState) -> None:
        """Wait until a job has ended. It is watched after the ones that were submitted before."""
        latest: type[Status] | None = None
        is_in_order = await self._watched.acquire(MAX_UNWATCHED)
        self._statuses[latest] += 1
        try:
            watcher = handle._watch(self._dispatcher, state, interval=None, poll_immediately=False)
            async with aclosing(watcher.statuses()) as statuses:
                async for status in statuses:
                    state.last = status
                    self._statuses[latest] -= 1
                    latest = type(status)
                    self._statuses[latest] += 1
                    if latest is InProgress:
                        running = self.running
                        self._limit.observe_running(running)
                        if running * EXCESS > self._watched.total:
                            self._watched.total = math.ceil(running * EXCESS)
        finally:
            self._statuses[latest] -= 1
            if is_in_order:
                self._watched.release()

    @property
    def running(self) -> int:
        """The number of jobs that runners execute, as far as their statuses are known."""
        return self._statuses[InProgress]

    @property
    def queued(self) -> int:
        """The number of jobs that wait for a runner, as far as that is known."""
        queued = self._statuses[Queued]
        # While half of those that are watched in excess wait for runners, so do those behind them.
        is_full = queued >= self.running * (EXCESS - 1) / 2
        return queued + self._watched.waiting if is_full else queued
