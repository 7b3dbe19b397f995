"""Slots that are shared fairly, first among tenants and then among the endpoints of each.

A tenant is whoever has a key. Whoever is alone may hold all slots. As soon as another tenant or
endpoint has to wait for one, slots are asked back from whoever holds most, until they are spread
evenly; a free slot goes to whoever holds fewest. So nobody waits behind the long jobs of others.
Within one endpoint of one tenant slots are given in order, and none is asked back.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FairSlots", "Share"]


class Share:
    """The right of one user to a slot.

    Args:
        tenant: Who pays.
        endpoint: What is used.

    Attributes:
        is_wanted: Whether the slot that it holds is asked back.
        on_wanted: Called when the slot is asked back; ``None`` for nothing.
    """

    __slots__ = ("group", "is_wanted", "on_wanted", "turn")

    def __init__(self, tenant: object, endpoint: str) -> None:
        self.group = tenant, endpoint
        self.is_wanted = False
        self.on_wanted: Callable[[], None] | None = None
        self.turn: anyio.Event | None = None


class _Group:
    """The shares of one tenant in one endpoint, in order."""

    def __init__(self, tenant: object) -> None:
        self.tenant = tenant
        self.holding: dict[Share, None] = {}
        self.waiting: dict[Share, None] = {}
        self.leaving = 0  # how many of those that hold a slot are asked for it
        self.coming = 0  # how many slots are asked for on behalf of those that wait

    @property
    def staying(self) -> int:
        return len(self.holding) - self.leaving


class FairSlots:
    """A number of slots on one event loop.

    Args:
        total: How many there are.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._groups: dict[object, _Group] = {}
        self._staying: Counter[object] = Counter()  # slots by tenant

    @property
    def free(self) -> int:
        """How many slots nobody holds."""
        return self._free

    def waiting_beside(self, share: Share) -> int:
        """Return how many of the same tenant and endpoint wait."""
        group = self._groups.get(share.group)
        return 0 if group is None else len(group.waiting)

    def try_acquire(self, share: Share) -> bool:
        """Acquire a slot if one is free."""
        if not self._free:  # where somebody waits, none is
            return False
        self._give(self._group(share), share)
        return True

    async def acquire(self, share: Share) -> None:
        """Wait for a slot."""
        if self.try_acquire(share):
            return
        group = self._group(share)
        turn = share.turn = anyio.Event()
        group.waiting[share] = None
        self._ask_for(group)
        try:
            await turn.wait()
        except BaseException:
            if share in group.holding:
                self.release(share)
            raise
        finally:
            share.turn = None
            group.waiting.pop(share, None)
            group.coming = min(group.coming, len(group.waiting))
            self._tidy(share)

    def release(self, share: Share) -> None:
        """Release the slot that a share holds."""
        group = self._groups[share.group]
        del group.holding[share]
        if share.is_wanted:
            share.is_wanted = False
            group.leaving -= 1
        else:
            self._staying[group.tenant] -= 1
        self._tidy(share)
        self._free += 1
        self._give_to_next()

    def _group(self, share: Share) -> _Group:
        group = self._groups.get(share.group)
        if group is None:
            group = self._groups[share.group] = _Group(share.group[0])
        return group

    def _tidy(self, share: Share) -> None:
        group = self._groups.get(share.group)
        if group is not None and not group.holding and not group.waiting:
            del self._groups[share.group]
            if not self._staying[group.tenant]:
                del self._staying[group.tenant]

    def _give(self, group: _Group, share: Share) -> None:
        self._free -= 1
        group.holding[share] = None
        self._staying[group.tenant] += 1

    def _give_to_next(self) -> None:
        waiting = [group for group in self._groups.values() if group.waiting]
        if waiting:
            group = min(waiting, key=self._rank)
            share = next(iter(group.waiting))
            del group.waiting[share]
            group.coming = max(0, group.coming - 1)
            self._give(group, share)
            if share.turn is not None:
                share.turn.set()

    def _rank(self, group: _Group) -> tuple[int, int]:
        return self._staying[group.tenant], group.staying

    def _ask_for(self, group: _Group) -> None:
        """Ask for a slot of whoever holds most, if that is unfair to a group that waits."""
        others = [other for other in self._groups.values() if other is not group and other.staying]
        if not others:
            return
        coming = sum(each.coming for each in self._groups.values() if each.tenant == group.tenant)
        richest = max(others, key=self._rank)
        if self._staying[richest.tenant] - self._staying[group.tenant] - coming < 2:
            others = [other for other in others if other.tenant == group.tenant]
            if not others:
                return
            richest = max(others, key=self._rank)
        if richest.tenant == group.tenant and richest.staying - group.staying - group.coming < 2:
            return
        share = next(share for share in richest.holding if not share.is_wanted)
        group.coming += 1
        richest.leaving += 1
        self._staying[richest.tenant] -= 1
        share.is_wanted = True
        if share.on_wanted is not None:
            share.on_wanted()
