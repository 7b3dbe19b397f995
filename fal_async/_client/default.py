"""The client that the module-level functions use: one for each event loop."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_async._client.client import AsyncClient
    from fal_async._net.event_loops import PerLoop

__all__ = ["default_client", "load_default_client"]

_clients: PerLoop[AsyncClient] | None = None


def default_client() -> AsyncClient:
    """The running event loop's client; its connections are closed when the loop ends."""
    global _clients
    if _clients is None:
        from fal_async._client.client import AsyncClient
        from fal_async._net.event_loops import PerLoop

        _clients = PerLoop(AsyncClient)
    return _clients.get()


async def load_default_client() -> AsyncClient:
    """The same; what has to be imported first does not hold up the event loop."""
    if _clients is None and "fal_async._client.client" not in sys.modules:
        from fal_async._net.threads import run_in_thread

        await run_in_thread(lambda: import_module("fal_async._client.client"))
    return default_client()
