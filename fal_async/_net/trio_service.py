"""`TrioService`: timers, and the end of a trio run. The event loops of asyncio have both.

A cancel scope of trio, with its deadline, takes more time than the rest of a wait for a socket.
"""

from __future__ import annotations

import contextlib
import math
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

__all__ = ["TrioService", "TrioTimer"]

#: Number of cancelled timers that are kept, at least, until they are due.
KEPT_TIMERS: Final = 100


class TrioTimer:
    """A call that is due at some time, unless it is cancelled before."""

    __slots__ = ("_service", "call")

    def __init__(self, service: TrioService, call: Callable[[], object]) -> None:
        self._service = service
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Cancel the call, if it was not made before."""
        if self.call is not None:
            self.call = None
            self._service.forget_timer()


class TrioService:
    """A system task of one trio run, started on first use."""

    def __init__(self) -> None:
        from trio import current_time  # the running loop has imported it

        self._time = current_time
        self._on_end: dict[Callable[[], object], None] = {}
        self._is_running = False
        self._is_ending = False
        self._timers: list[tuple[float, int, TrioTimer]] = []
        self._pending = 0
        self._numbers = count()
        self._scope: trio.CancelScope | None = None

    @classmethod
    def current(cls, token: object) -> TrioService:
        """Return the service of the running trio loop, which has this token."""
        service = _services.get(token)
        if service is None:
            service = _services[token] = cls()
        return service

    def add_on_end(self, call: Callable[[], object]) -> None:
        """Call a function when the main task has ended; timers go on until it is removed."""
        if not self._is_running:
            self._start()
        self._on_end[call] = None
        if self._is_ending:
            call()

    def remove_on_end(self, call: Callable[[], object]) -> None:
        """Remove a function that was added."""
        del self._on_end[call]
        if self._is_ending and not self._on_end and self._scope is not None:
            self._scope.cancel()

    def _start(self) -> None:
        from trio.lowlevel import spawn_system_task  # the running loop has imported it

        with contextlib.suppress(RuntimeError):  # the run has ended, and cancels all waits
            spawn_system_task(self._run)
            self._is_running = True

    def call_later(self, seconds: float, call: Callable[[], object]) -> TrioTimer:
        """Call a function after a time in seconds."""
        if not self._is_running:
            self._start()
        timer = TrioTimer(self, call)
        due = self._time() + seconds
        self._pending += 1
        heappush(self._timers, (due, next(self._numbers), timer))
        if self._scope is not None and due < self._scope.deadline:
            self._scope.deadline = due
        return timer

    def forget_timer(self) -> None:
        """Count a timer that was cancelled, and drop those when most of them are."""
        self._pending -= 1
        if len(self._timers) > KEPT_TIMERS + 2 * self._pending:
            self._timers = [each for each in self._timers if each[2].call is not None]
            heapify(self._timers)

    async def _run(self) -> None:
        import trio  # the running loop has imported it

        try:
            while True:
                await self._wait_for_timers()
        except trio.Cancelled:
            self._is_ending = True
            for call in tuple(self._on_end):
                call()
            with trio.CancelScope(shield=True):
                while self._on_end:
                    await self._wait_for_timers()
            raise
        finally:
            self._is_running = False

    async def _wait_for_timers(self) -> None:
        import trio  # the running loop has imported it

        due = self._timers[0][0] if self._timers else math.inf
        with trio.CancelScope(deadline=due) as self._scope:
            await trio.sleep_forever()
        self._scope = None
        now = self._time()
        while self._timers and self._timers[0][0] <= now:
            timer = heappop(self._timers)[2]
            call, timer.call = timer.call, None
            if call is not None:
                self._pending -= 1
                call()


#: By the token of their run.
_services: WeakKeyDictionary[object, TrioService] = WeakKeyDictionary()
