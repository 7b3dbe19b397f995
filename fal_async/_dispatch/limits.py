"""Concurrency limits of each lane; the rate limit of status polls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from fal_async._dispatch.fair_slots import FairSlots
from fal_async._protocol.operation import Lane

if TYPE_CHECKING:
    from fal_async._config import Limits
    from fal_async._dispatch.call_state import CallState

__all__ = ["LaneLimits", "RateLimiter"]

#: The setting that limits each lane. Status streams have `LaneLimits.streams` instead.
_SETTINGS: Final = {
    Lane.CONTROL: "control",
    Lane.CANCEL: "control",
    Lane.HELD: "held",
    Lane.UPLOAD: "uploads",
    Lane.DOWNLOAD: "downloads",
}


class LaneLimits:
    """The concurrency limits on one event loop. Operations wait for a slot, however long.

    Attributes:
        streams: The slots of status streams.
        polls: The rate limit of status polls.
        buffers: The slots of upload parts that are kept in memory.
    """

    def __init__(self, limits: Limits) -> None:
        sizes = {lane: getattr(limits, setting) for lane, setting in _SETTINGS.items()}
        self._semaphores = {
            lane: anyio.Semaphore(size, fast_acquire=True) for lane, size in sizes.items()
        }
        self._names = {lane: f"limits.{_SETTINGS[lane]} ({size})" for lane, size in sizes.items()}
        self.buffers = anyio.Semaphore(limits.uploads, fast_acquire=True)
        self.streams = FairSlots(limits.max_streams)
        self.polls = RateLimiter(1 / limits.polls_per_second)

    async def acquire(self, lane: Lane, state: CallState) -> None:
        """Acquire a slot, and wait for it if none is free.

        Args:
            lane: The lane.
            state: The state of the call, which records the limit while the call waits for it.
        """
        semaphore = self._semaphores.get(lane)
        if semaphore is None:
            return
        try:
            semaphore.acquire_nowait()
        except anyio.WouldBlock:
            state.waiting_for = self._names[lane]
            await semaphore.acquire()
            state.waiting_for = ""

    def release(self, lane: Lane) -> None:
        """Release a slot."""
        if lane in self._semaphores:
            self._semaphores[lane].release()


class RateLimiter:
    """A rate limit that tenants share fairly: each active tenant gets an equal part.

    Args:
        interval: The seconds between two events.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next: dict[object, float] = {}

    def reserve(self, now: float, tenant: object) -> float:
        """Reserve the next event of a tenant, and return the seconds until then."""
        busy = {other: moment for other, moment in self._next.items() if moment > now}
        moment = busy.get(tenant, now)
        others = len(busy) - (tenant in busy)
        busy[tenant] = moment + self._interval * (1 + others)
        self._next = busy
        return moment - now
