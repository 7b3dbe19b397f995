"""Limits of one event loop: the slots of each lane, and the rate of polls."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Final

import anyio

from fal_async._config import LimitUsage
from fal_async._dispatch.fair_slots import FairSlots
from fal_async._net.waiters import Turns, Waiter
from fal_async._protocol.operation import Lane

if TYPE_CHECKING:
    from fal_async._config import Limits
    from fal_async._dispatch.call_state import CallState

__all__ = ["LaneLimits", "RateLimiter", "Slots"]

_log = logging.getLogger("fal_async")

#: The time after which a wait for a slot is logged, in seconds.
LONG_WAIT: Final = 1.0

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
        slots: The slots of each lane.
        streams: The slots of status streams.
        poll_rate: The rate limit of status polls.
        buffers: The slots of upload parts that are kept in memory.
        turns: The turns of calls that begin at once.
    """

    def __init__(self, limits: Limits) -> None:
        sizes = {lane: getattr(limits, setting) for lane, setting in _SETTINGS.items()}
        self.slots = {
            lane: Slots(f"limits.{_SETTINGS[lane]} ({size})", size) for lane, size in sizes.items()
        }
        self.slots[Lane.WATCH] = Slots("status streams", sys.maxsize)
        self.buffers = anyio.Semaphore(limits.uploads, fast_acquire=True)
        self.streams = FairSlots(limits.max_streams)
        self.poll_rate = RateLimiter(1 / limits.polls_per_second)
        self.turns = Turns()


class Slots:
    """Slots that are assigned in the order of the requests.

    A call that has waited for a second logs it, if no other has waited for longer.

    Args:
        name: The limit and its size, for logs.
        total: The number of slots.
    """

    def __init__(self, name: str, total: int) -> None:
        self.name = name
        self._total = self._free = total
        self._waiters: OrderedDict[Waiter, float] = OrderedDict()  # and when they began to wait

    @property
    def usage(self) -> LimitUsage:
        """The numbers of slots and of waiting calls."""
        used = self._total - self._free
        return LimitUsage(limit=self._total, used=used, waiting=len(self._waiters))

    async def acquire(self, state: CallState) -> None:
        """Acquire a slot, and wait for it if none is free.

        Args:
            state: The state of the call, which records the limit while the call waits for it.
        """
        if self._free:  # a slot is never free while a call waits
            self._free -= 1
            return
        state.waiting_for = self.name
        state.observer.wait_for_slot(self.name)
        since = monotonic()
        await self._wait(since)
        state.waiting_for = ""
        state.observer.acquire_slot(self.name, monotonic() - since)

    async def _wait(self, since: float) -> None:
        waiter = Waiter()
        timeout = None if self._waiters else LONG_WAIT
        self._waiters[waiter] = since
        try:
            while not await waiter.wait(timeout):
                timeout = None
                _log.info("%d calls wait for a slot of %s", len(self._waiters), self.name)
        except BaseException:
            if waiter.is_ready:
                self.release()
            else:
                is_first = next(iter(self._waiters)) is waiter
                del self._waiters[waiter]
                if is_first:
                    self._limit_first_wait()
            raise

    def release(self) -> None:
        """Release a slot, and assign it to the call that has waited for longest."""
        if self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            waiter.wake()
            self._limit_first_wait()
        else:
            self._free += 1

    def _limit_first_wait(self) -> None:
        """Let the call that has become the first one log its wait; see `LONG_WAIT`."""
        for waiter, since in self._waiters.items():
            left = since + LONG_WAIT - monotonic()
            if left > 0:
                waiter.set_timeout(left)
            break


class RateLimiter:
    """A rate limit that tenants share fairly: each active tenant gets an equal part.

    Args:
        interval: The seconds between two events.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next: dict[object, float] = {}  # of the tenants that are active
        self._expires: list[tuple[float, int, object]] = []  # when to look for those that are not
        self._numbers = count()

    def reserve(self, now: float, tenant: object) -> float:
        """Reserve the next event of a tenant, and return the seconds until then."""
        self._remove_inactive(now)
        moment = self._next.get(tenant)
        others = len(self._next) - (moment is not None)
        after = (now if moment is None else moment) + self._interval * (1 + others)
        self._next[tenant] = after
        if moment is None:
            heappush(self._expires, (after, next(self._numbers), tenant))
            return 0.0
        return moment - now

    def _remove_inactive(self, now: float) -> None:
        while self._expires and self._expires[0][0] <= now:
            _, number, tenant = heappop(self._expires)
            if self._next[tenant] <= now:
                del self._next[tenant]
            else:
                heappush(self._expires, (self._next[tenant], number, tenant))
