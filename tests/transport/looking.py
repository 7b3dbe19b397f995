"""What a transport holds, seen from the inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fal_async._transport.engine import Engine


class Holder(Protocol):
    """A transport, or the carrier of a client."""

    engine: Engine


def taken(holder: Holder) -> int:
    """How many places are in use in the running loop."""
    return sum(berth.taken for berth in holder.engine._pools.get()._berths.values())


def idle(holder: Holder) -> int:
    """How many connections rest in the running loop."""
    pool = holder.engine._pools.get()
    resting = sum(len(berth.idle) for berth in pool._berths.values())
    assert resting + taken(holder) >= len(pool._open) >= resting
    return resting


def waiting(holder: Holder) -> int:
    """How many requests wait for a connection in the running loop."""
    return sum(len(berth.waiters) for berth in holder.engine._pools.get()._berths.values())
