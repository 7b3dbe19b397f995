"""The client that the module-level functions use: one for each event loop."""

from __future__ import annotations

from fal_async._client import AsyncClient
from fal_async._transport.loops import PerLoop

__all__ = ["default_client"]

_clients: PerLoop[AsyncClient] = PerLoop(AsyncClient)


def default_client() -> AsyncClient:
    """The running event loop's client; its connections are closed when the loop ends."""
    return _clients.get()
