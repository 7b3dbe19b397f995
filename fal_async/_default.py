"""The client that the module-level functions use: one for each event loop."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_async._client import AsyncClient
    from fal_async._transport.loops import PerLoop

__all__ = ["default_client", "ready_client"]

_clients: PerLoop[AsyncClient] | None = None


def default_client() -> AsyncClient:
    """The running event loop's client; its connections are closed when the loop ends."""
    global _clients
    if _clients is None:
        from fal_async._client import AsyncClient
        from fal_async._transport.loops import PerLoop

        _clients = PerLoop(AsyncClient)
    return _clients.get()


async def ready_client() -> AsyncClient:
    """The same; what has to be imported first does not hold up the event loop."""
    if _clients is None and "fal_async._client" not in sys.modules:
        from fal_async._transport.threads import in_thread

        await in_thread(lambda: import_module("fal_async._client"))
    return default_client()
