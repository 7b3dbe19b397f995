"""How much goes on at once: a gate before each lane, and a pace for waits that poll."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from fal_async._protocol.operations import Lane

if TYPE_CHECKING:
    from fal_async._config import Limits

__all__ = ["Gates", "Pace"]


class Pace:
    """Gives out moments that are at least `interval` seconds apart, to whoever asks, in turn."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Take the next free moment; the answer is how many seconds away it is."""
        moment = max(now, self._next)
        self._next = moment + self._interval
        return moment - now


class Gates:
    """The places of each lane on one event loop. Waiting for one is never an error.

    Attributes:
        polls: When the waits that poll may do so.
        buffers: The room for parts of uploads that have to be kept in memory.
    """

    def __init__(self, limits: Limits) -> None:
        self._places = {
            Lane.CONTROL: anyio.Semaphore(limits.control, fast_acquire=True),
            Lane.HELD: anyio.Semaphore(limits.held, fast_acquire=True),
            Lane.WATCH: anyio.Semaphore(limits.max_streams, fast_acquire=True),
            Lane.UPLOAD: anyio.Semaphore(limits.uploads, fast_acquire=True),
            Lane.DOWNLOAD: anyio.Semaphore(limits.downloads, fast_acquire=True),
        }
        self.buffers = anyio.Semaphore(limits.uploads, fast_acquire=True)
        self.polls = Pace(1 / limits.polls_per_second)

    async def enter(self, lane: Lane) -> None:
        """Wait for a place."""
        await self._places[lane].acquire()

    def try_enter(self, lane: Lane) -> bool:
        """Take a place if one is free."""
        try:
            self._places[lane].acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    def waiting(self, lane: Lane) -> int:
        """How many stand in line for a place."""
        return self._places[lane].statistics().tasks_waiting

    def leave(self, lane: Lane) -> None:
        """Give a place back."""
        self._places[lane].release()
