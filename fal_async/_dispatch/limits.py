"""How much goes on at once: a gate before each lane, and a pace for waits that poll."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from fal_async._dispatch.fair_slots import FairSlots
from fal_async._protocol.operation import Lane

if TYPE_CHECKING:
    from fal_async._config import Limits
    from fal_async._dispatch.call_state import CallState

__all__ = ["LaneLimits", "RateLimiter"]


#: The setting that bounds each lane.
_LIMITS: Final = {
    Lane.CONTROL: "control",
    Lane.CANCEL: "control",
    Lane.HELD: "held",
    Lane.UPLOAD: "uploads",
    Lane.DOWNLOAD: "downloads",
}


class RateLimiter:
    """A rate limit that tenants share: each has an equal part while others use theirs as well.

    Args:
        interval: The seconds between two moments.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next: dict[object, float] = {}

    def reserve(self, now: float, tenant: object) -> float:
        """Take the next moment that is free for a tenant; return how many seconds away it is."""
        busy = {other: moment for other, moment in self._next.items() if moment > now}
        moment = busy.get(tenant, now)
        others = len(busy) - (tenant in busy)
        busy[tenant] = moment + self._interval * (1 + others)
        self._next = busy
        return moment - now


class LaneLimits:
    """The places of each lane on one event loop. Waiting for one is never an error.

    Attributes:
        streams: The slots of the waits on queue jobs that hold a status stream.
        polls: When the waits that poll may do so.
        buffers: The room for parts of uploads that have to be kept in memory.
    """

    def __init__(self, limits: Limits) -> None:
        sizes = {lane: getattr(limits, name) for lane, name in _LIMITS.items()}
        self._semaphores = {
            lane: anyio.Semaphore(size, fast_acquire=True) for lane, size in sizes.items()
        }
        self._names = {lane: f"limits.{_LIMITS[lane]} ({size})" for lane, size in sizes.items()}
        self.buffers = anyio.Semaphore(limits.uploads, fast_acquire=True)
        self.streams = FairSlots(limits.max_streams)
        self.polls = RateLimiter(1 / limits.polls_per_second)

    async def acquire(self, lane: Lane, state: CallState | None = None) -> None:
        """Wait for a place.

        Args:
            lane: The lane.
            state: The state of the call, which notes what is waited for if there is no place.
        """
        if self.acquire_nowait(lane):
            return
        if state is not None:
            state.waiting_for = self._names[lane]
        await self._semaphores[lane].acquire()
        if state is not None:
            state.waiting_for = ""

    def acquire_nowait(self, lane: Lane) -> bool:
        """Take a place if one is free."""
        try:
            self._semaphores[lane].acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    def release(self, lane: Lane) -> None:
        """Give a place back."""
        self._semaphores[lane].release()
