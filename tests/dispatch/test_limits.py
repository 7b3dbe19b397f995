"""Fair slots: distribution among tenants and endpoints; the shared rate limit."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_async._dispatch.fair_slots import FairSlots, Share
from fal_async._dispatch.limits import RateLimiter

TOTAL = 8


class Users:
    """Users who release a slot when it is requested, and wait for another one."""

    def __init__(self) -> None:
        self.slots = FairSlots(TOTAL)
        self.holding: Counter[tuple[str, str]] = Counter()

    async def use(self, tenant: str, endpoint: str) -> None:
        share = Share(tenant, endpoint)
        while True:
            await self.slots.acquire(share)
            wanted = anyio.Event()
            share.on_requested = wanted.set
            self.holding[tenant, endpoint] += 1
            try:
                if not share.is_requested:
                    await wanted.wait()
            finally:
                self.holding[tenant, endpoint] -= 1
                share.on_requested = None
                self.slots.release(share)


def spread(demand: dict[tuple[str, str], int]) -> list[int]:
    """Return the slots of each tenant when they are spread evenly."""
    wanted = Counter[str]()
    for (tenant, _), users in demand.items():
        wanted[tenant] += users
    held = dict.fromkeys(wanted, 0)
    for _ in range(min(TOTAL, sum(wanted.values()))):
        smallest = min((t for t in wanted if held[t] < wanted[t]), key=held.__getitem__)
        held[smallest] += 1
    return sorted(held.values())


GROUPS = st.tuples(st.sampled_from("ABC"), st.sampled_from("xy"))


@given(demand=st.dictionaries(GROUPS, st.integers(1, 12), min_size=1))
@settings(max_examples=40)
def test_slots_are_spread_evenly_among_tenants(demand: dict[tuple[str, str], int]) -> None:
    async def main() -> None:
        users = Users()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for (tenant, endpoint), number in demand.items():
                    for _ in range(number):
                        group.start_soon(users.use, tenant, endpoint)
                    await anyio.wait_all_tasks_blocked()
                tenants = Counter[str]()
                for (tenant, _), held in users.holding.items():
                    tenants[tenant] += held
                assert sorted(tenants.values()) == spread(demand)
                group.cancel_scope.cancel()
        assert users.slots.free == TOTAL

    anyio.run(main)


async def test_endpoints_of_a_tenant_have_equal_parts() -> None:
    users = Users()
    async with anyio.create_task_group() as group:
        for endpoint in ("x", "y"):
            for _ in range(20):
                group.start_soon(users.use, "A", endpoint)
            await anyio.wait_all_tasks_blocked()
        assert set(users.holding.values()) == {TOTAL // 2}
        group.cancel_scope.cancel()


async def test_one_endpoint_gets_its_slots_in_order() -> None:
    slots = FairSlots(1)
    shares = [Share("A", "x") for _ in range(4)]
    order: list[int] = []

    async def use(number: int) -> None:
        await slots.acquire(shares[number])
        order.append(number)
        assert not shares[number].is_requested
        slots.release(shares[number])

    assert slots.try_acquire(shares[0])
    async with anyio.create_task_group() as group:
        for number in (1, 2, 3):
            group.start_soon(use, number)
            await anyio.wait_all_tasks_blocked()
        assert slots.waiting(shares[0]) == 3
        assert not shares[0].is_requested
        slots.release(shares[0])
    assert order == [1, 2, 3]
    assert slots.free == 1


@pytest.mark.parametrize("wait", [0, 1, 2])
async def test_cancelled_waiter_keeps_no_slot(wait: int) -> None:
    """Cancel before the slot is free, while it is assigned, and never."""
    slots = FairSlots(1)
    first, second = Share("A", "x"), Share("B", "x")
    assert slots.try_acquire(first)

    async def use() -> None:
        await slots.acquire(second)
        slots.release(second)

    async with anyio.create_task_group() as group:
        group.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        if wait:
            slots.release(first)
        if wait != 2:
            group.cancel_scope.cancel()
    if not wait:
        slots.release(first)
    assert slots.free == 1
    assert slots.waiting(second) == 0


def test_tenants_share_the_rate_limit() -> None:
    limiter = RateLimiter(0.1)
    for _ in range(1000):
        limiter.reserve(0.0, "busy")
    assert limiter.reserve(0.0, "other") == 0
    assert limiter.reserve(0.0, "other") == pytest.approx(0.2)
    assert limiter.reserve(0.0, "third") == 0
    assert limiter.reserve(0.0, "third") == pytest.approx(0.3)
    assert limiter.reserve(1000.0, "other") == 0
    assert limiter.reserve(1000.0, "other") == pytest.approx(0.1)
