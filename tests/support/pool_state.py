"""The connections that a transport holds, from the inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fal_async._http.pool import HTTPConnectionPool, _OriginState


class Pooled(Protocol):
    """A transport with a connection pool."""

    _pool: HTTPConnectionPool


def origins(transport: Pooled) -> list[_OriginState]:
    """Return the origins that the transport knows in the running event loop."""
    return list(transport._pool._connections.get()._origins.values())


def in_use(transport: Pooled) -> int:
    """Count the requests that use or open a connection in the running event loop."""
    return sum(state.requests for state in origins(transport)) - waiting(transport)


def idle(transport: Pooled) -> int:
    """Count the idle connections of the running event loop."""
    count = sum(len(state.idle) for state in origins(transport))
    open_connections = len(transport._pool._connections.get()._open)
    assert count + in_use(transport) >= open_connections >= count
    return count


def waiting(transport: Pooled) -> int:
    """Count the requests that wait for a slot in the running event loop."""
    return sum(
        state.slots.statistics().tasks_waiting
        for state in origins(transport)
        if state.slots is not None
    )
