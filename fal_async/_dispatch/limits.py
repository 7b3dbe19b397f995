"""Limits of one event loop: slots of each lane, slots of status streams, the rate of polls."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Final

import anyio

from fal_async._core.annotations import set_module
from fal_async._dispatch.ranking import Ranking
from fal_async._net.waiters import Turns, Waiter
from fal_async._protocol.operation import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async._config import Limits
    from fal_async._dispatch.call_state import CallState

__all__ = ["FairSlots", "LaneLimits", "LimitUsage", "RateLimiter", "Share", "Slots"]

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


@set_module("fal_async")
@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUsage:
    """The use of one of the `Limits` of a client.

    Attributes:
        limit: The number of slots.
        used: The number of slots in use.
        waiting: The number of calls that wait for a slot.
    """

    limit: int
    used: int
    waiting: int


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
        began = monotonic()
        await self._wait(began)
        state.waiting_for = ""
        state.observer.acquire_slot(self.name, monotonic() - began)

    async def _wait(self, began: float) -> None:
        waiter = Waiter()
        timeout = None if self._waiters else LONG_WAIT
        self._waiters[waiter] = began
        try:
            while not await waiter.wait(timeout):
                timeout = None
                _log.info("%d calls wait for a slot of %s", len(self._waiters), self.name)
        except BaseException:
            if waiter.is_awake:
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
        for waiter, began in self._waiters.items():
            left = began + LONG_WAIT - monotonic()
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
        self._ends: list[tuple[float, int, object]] = []  # when to look for those that are not
        self._numbers = count()

    def reserve(self, now: float, tenant: object) -> float:
        """Reserve the next event of a tenant, and return the seconds until then."""
        self._remove_inactive(now)
        moment = self._next.get(tenant)
        others = len(self._next) - (moment is not None)
        after = (now if moment is None else moment) + self._interval * (1 + others)
        self._next[tenant] = after
        if moment is None:
            heappush(self._ends, (after, next(self._numbers), tenant))
            return 0.0
        return moment - now

    def _remove_inactive(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, number, tenant = heappop(self._ends)
            if self._next[tenant] <= now:
                del self._next[tenant]
            else:
                heappush(self._ends, (self._next[tenant], number, tenant))


class Share:
    """The claim of one job to a slot.

    Args:
        tenant: The owner of the key.
        endpoint: The endpoint that the job uses.

    Attributes:
        tenant: The owner of the key.
        group: The owner of the key and the endpoint.
        is_requested: Whether another share needs the slot that this one holds.
        on_requested: Called when the slot is requested; ``None`` without a callback.
        waiter: The wait for a slot; ``None`` while there is none.
    """

    __slots__ = ("group", "is_requested", "on_requested", "tenant", "waiter")

    def __init__(self, tenant: object, endpoint: str) -> None:
        self.tenant = tenant
        self.group = tenant, endpoint
        self.is_requested = False
        self.on_requested: Callable[[], None] | None = None
        self.waiter: Waiter | None = None


class _Tenant:
    """The shares of one tenant.

    Attributes:
        groups: The number of groups.
        kept: The number of slots that are not requested.
        expected: The number of slots that are requested for waiters.
        holding: The groups that keep slots.
        waiting: The groups that have waiters.
    """

    def __init__(self) -> None:
        self.groups = 0
        self.kept = 0
        self.expected = 0
        self.holding: Ranking[_Group] = Ranking()
        self.waiting: Ranking[_Group] = Ranking()


class _Group:
    """The shares of one tenant in one endpoint.

    Attributes:
        tenant: The tenant.
        holders: The shares with a slot, in order.
        waiters: The shares without a slot, in order.
        requested: The number of holders whose slot is requested.
        expected: The number of slots that are requested for waiters.
    """

    def __init__(self, tenant: _Tenant) -> None:
        self.tenant = tenant
        self.holders: dict[Share, None] = {}
        self.waiters: OrderedDict[Share, None] = OrderedDict()
        self.requested = 0
        self.expected = 0

    @property
    def kept(self) -> int:
        return len(self.holders) - self.requested

    def expect(self, slots: int) -> None:
        """Set the number of slots that are requested for waiters."""
        self.tenant.expected += slots - self.expected
        self.expected = slots


class FairSlots:
    """Slots that are shared fairly among tenants, then among the endpoints of each tenant.

    A tenant is the owner of a key. A tenant that is alone may hold all slots. When another tenant
    or endpoint has to wait for a slot, slots are requested from the largest holder until they are
    spread evenly, and a free slot goes to the smallest holder. No tenant waits for the long jobs of
    another. Within one endpoint of one tenant slots are assigned in order, and none is requested.

    Args:
        total: The number of slots.
    """

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._groups: dict[object, _Group] = {}
        self._tenants: dict[object, _Tenant] = {}
        self._holding: Ranking[_Tenant] = Ranking()
        self._waiting: Ranking[_Tenant] = Ranking()

    @property
    def free(self) -> int:
        """The number of free slots."""
        return self._free

    @property
    def usage(self) -> LimitUsage:
        """The numbers of slots and of waiting jobs, which poll meanwhile."""
        waiting = sum(len(group.waiters) for group in self._groups.values())
        return LimitUsage(limit=self._total, used=self._total - self._free, waiting=waiting)

    def waiting(self, share: Share) -> int:
        """Return the number of waiting shares of the same tenant and endpoint."""
        group = self._groups.get(share.group)
        return 0 if group is None else len(group.waiters)

    def try_acquire(self, share: Share) -> bool:
        """Acquire a slot if one is free."""
        if not self._free:  # a slot is never free while a share waits
            return False
        self._assign(self._group(share), share)
        return True

    async def acquire(self, share: Share, timeout: float | None = None) -> bool:
        """Acquire a slot, and wait for it if none is free.

        Args:
            share: The share.
            timeout: The longest time to wait, in seconds; ``None`` disables the timeout.

        Returns:
            Whether a slot was acquired in time.
        """
        if self.try_acquire(share):
            return True
        group = self._group(share)
        share.waiter = Waiter()
        group.waiters[share] = None
        self._request_slot(group)
        self._rank(group)
        try:
            return await share.waiter.wait(timeout)
        except BaseException:
            if share in group.holders:
                self.release(share)
            raise
        finally:
            share.waiter = None
            if share in group.waiters:
                del group.waiters[share]
                group.expect(min(group.expected, len(group.waiters)))
                self._rank(group)
                self._discard_if_empty(share)

    def release(self, share: Share) -> None:
        """Release the slot of a share, and assign it to the waiter with the fewest slots."""
        group = self._groups[share.group]
        del group.holders[share]
        if share.is_requested:
            share.is_requested = False
            group.requested -= 1
        else:
            group.tenant.kept -= 1
        self._free += 1
        self._rank(group)
        self._discard_if_empty(share)
        tenant = self._waiting.lowest()
        smallest = None if tenant is None else tenant.waiting.lowest()
        if smallest is not None:
            share, _ = smallest.waiters.popitem(last=False)
            smallest.expect(min(max(0, smallest.expected - 1), len(smallest.waiters)))
            self._assign(smallest, share)
            if share.waiter is not None:
                share.waiter.wake()

    def _group(self, share: Share) -> _Group:
        group = self._groups.get(share.group)
        if group is None:
            tenant = self._tenants.get(share.tenant)
            if tenant is None:
                tenant = self._tenants[share.tenant] = _Tenant()
            tenant.groups += 1
            group = self._groups[share.group] = _Group(tenant)
        return group

    def _discard_if_empty(self, share: Share) -> None:
        group = self._groups[share.group]
        if not group.holders and not group.waiters:
            del self._groups[share.group]
            group.tenant.groups -= 1
            if not group.tenant.groups:
                del self._tenants[share.tenant]

    def _assign(self, group: _Group, share: Share) -> None:
        self._free -= 1
        group.holders[share] = None
        group.tenant.kept += 1
        self._rank(group)

    def _rank(self, group: _Group) -> None:
        """Note the slots and the waiters of a group, which have changed."""
        tenant = group.tenant
        tenant.holding.set(group, group.kept or None)
        tenant.waiting.set(group, group.kept if group.waiters else None)
        self._holding.set(tenant, tenant.kept or None)
        self._waiting.set(tenant, tenant.kept if tenant.waiting else None)

    def _request_slot(self, group: _Group) -> None:
        """Request a slot of the largest holder if the distribution is unfair to a waiting group."""
        tenant, largest = group.tenant, self._holding.highest()
        if largest is None:
            return
        if largest.kept - tenant.kept - tenant.expected < 2:
            largest = tenant
        donor = largest.holding.highest()
        if donor is None:
            return
        if largest is tenant and donor.kept - group.kept - group.expected < 2:
            return
        share = next(share for share in donor.holders if not share.is_requested)
        group.expect(group.expected + 1)
        donor.requested += 1
        largest.kept -= 1
        self._rank(donor)
        share.is_requested = True
        if share.on_requested is not None:
            share.on_requested()
