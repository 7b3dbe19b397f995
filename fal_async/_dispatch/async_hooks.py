"""Calls of async hooks: in the background of their event loop, in the order of the events."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from fal_async._core.hooks import log_failures
from fal_async._net.background import spawn
from fal_async._net.event_loops import PerLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fal_async._net.background import BackgroundTask
    from fal_async.hooks._events import Hook

__all__ = ["flush_async_hooks", "run_later"]

_log = logging.getLogger("fal_async")

#: The number of events that may wait for async hooks on one event loop.
MAX_PENDING: Final = 10_000


class _PendingEvents:
    """The calls of async hooks on one event loop, which run one after the other."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Hook, Awaitable[object]]] = deque()
        self._task: BackgroundTask | None = None
        self._is_full = False

    def add(self, hook: Hook, awaitable: Awaitable[object]) -> None:
        """Run a call after those that were added before."""
        if len(self._queue) >= MAX_PENDING:
            _discard(awaitable)
            if not self._is_full:
                _log.warning(
                    "Async hooks are too slow: %d events wait, others are lost", MAX_PENDING
                )
            self._is_full = True
            return
        self._is_full = False
        self._queue.append((hook, awaitable))
        if self._task is None:
            self._task = spawn(self._run)

    async def wait(self) -> None:
        """Wait until all calls have run."""
        if self._task is not None:
            await self._task.wait()

    async def _run(self) -> None:
        try:
            while self._queue:
                hook, awaitable = self._queue.popleft()
                with log_failures(hook):
                    await awaitable
        finally:
            self._task = None
            while self._queue:  # the event loop ends
                _discard(self._queue.popleft()[1])


_pending: PerLoop[_PendingEvents] = PerLoop(_PendingEvents)


def run_later(hook: Hook, awaitable: Awaitable[object]) -> None:
    """Run a call of an async hook in the background, after those before it."""
    try:
        pending = _pending.get()
    except RuntimeError:  # the call was dropped after its event loop had ended
        _discard(awaitable)
    else:
        pending.add(hook, awaitable)


def _discard(awaitable: Awaitable[object]) -> None:
    if inspect.iscoroutine(awaitable):
        awaitable.close()


async def flush_async_hooks() -> None:
    """Wait until the async hooks of the running event loop have received all events."""
    await _pending.get().wait()
