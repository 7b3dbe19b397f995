"""What a transport holds, seen from the inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_async._transport.pool import PooledTransport


def taken(transport: PooledTransport) -> int:
    """How many places are in use in the running loop."""
    return sum(berth.taken for berth in transport._engine._pools.get()._berths.values())


def idle(transport: PooledTransport) -> int:
    """How many connections rest in the running loop."""
    pool = transport._engine._pools.get()
    resting = sum(len(berth.idle) for berth in pool._berths.values())
    assert resting + taken(transport) >= len(pool._open) >= resting
    return resting


def waiting(transport: PooledTransport) -> int:
    """How many requests wait for a connection in the running loop."""
    return sum(len(berth.waiters) for berth in transport._engine._pools.get()._berths.values())
