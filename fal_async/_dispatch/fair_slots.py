"""`FairSlots`: slots of status streams, shared fairly among tenants and endpoints."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

from fal_async._config import LimitUsage
from fal_async._net.waiters import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FairSlots", "Ranking", "Share"]

T = TypeVar("T")


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
        self._update_ranking(group)
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
                self._update_ranking(group)
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
        self._update_ranking(group)
        self._discard_if_empty(share)
        tenant = self._waiting.min()
        smallest = None if tenant is None else tenant.waiting.min()
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
        self._update_ranking(group)

    def _update_ranking(self, group: _Group) -> None:
        """Note the slots and the waiters of a group, which have changed."""
        tenant = group.tenant
        tenant.holding.set(group, group.kept or None)
        tenant.waiting.set(group, group.kept if group.waiters else None)
        self._holding.set(tenant, tenant.kept or None)
        self._waiting.set(tenant, tenant.kept if tenant.waiting else None)

    def _request_slot(self, group: _Group) -> None:
        """Request a slot of the largest holder if the distribution is unfair to a waiting group."""
        tenant, largest = group.tenant, self._holding.max()
        if largest is None:
            return
        if largest.kept - tenant.kept - tenant.expected < 2:
            largest = tenant
        donor = largest.holding.max()
        if donor is None:
            return
        if largest is tenant and donor.kept - group.kept - group.expected < 2:
            return
        share = next(share for share in donor.holders if not share.is_requested)
        group.expect(group.expected + 1)
        donor.requested += 1
        largest.kept -= 1
        self._update_ranking(donor)
        share.is_requested = True
        if share.on_requested is not None:
            share.on_requested()


class Ranking(Generic[T]):
    """Members by a number, such as that of the slots that they keep.

    The cost depends on how many different numbers there are, not on how many members.
    """

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._members: dict[int, OrderedDict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def set(self, member: T, number: int | None) -> None:
        """Set the number of a member; ``None`` removes it."""
        old = self._numbers.get(member)
        if old == number:
            return
        if old is not None:
            del self._numbers[member], self._members[old][member]
            if not self._members[old]:
                del self._members[old]
        if number is not None:
            self._numbers[member] = number
            self._members.setdefault(number, OrderedDict())[member] = None

    def min(self) -> T | None:
        """Return the first of the members with the lowest number; ``None`` without members."""
        return next(iter(self._members[min(self._members)])) if self._members else None

    def max(self) -> T | None:
        """Return the first of the members with the highest number; ``None`` without members."""
        return next(iter(self._members[max(self._members)])) if self._members else None
