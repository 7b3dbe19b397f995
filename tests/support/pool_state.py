"""What a transport holds, seen from the inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fal_async._http.pool import Engine


class Holder(Protocol):
    """A transport, or the carrier of a client."""

    _pool: Engine


def in_use(holder: Holder) -> int:
    """How many places are in use in the running loop."""
    return sum(berth.in_use for berth in holder._pool._pools.get()._berths.values())


def idle(holder: Holder) -> int:
    """How many connections rest in the running loop."""
    pool = holder._pool._pools.get()
    resting = sum(len(berth.idle) for berth in pool._berths.values())
    assert resting + in_use(holder) >= len(pool._open) >= resting
    return resting


def waiting(holder: Holder) -> int:
    """How many requests wait for a connection in the running loop."""
    return sum(len(berth.waiters) for berth in holder._pool._pools.get()._berths.values())
