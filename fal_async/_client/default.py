"""The default client of each event loop, for the module-level functions; `async_client`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_async._client.client import AsyncClient
    from fal_async._net.event_loops import PerLoop

__all__ = ["async_client", "default_client", "load_default_client"]

async_client: AsyncClient
_clients: PerLoop[AsyncClient] | None = None


def default_client() -> AsyncClient:
    """Return the running event loop's client; its connections are closed when the loop ends."""
    global _clients
    if _clients is None:
        # Late, so that importing a module-level function does not import the whole client.
        from fal_async._client.client import AsyncClient
        from fal_async._net.event_loops import PerLoop

        _clients = PerLoop(AsyncClient)
    return _clients.get()


async def load_default_client() -> AsyncClient:
    """Return the same client, and import its code in a worker thread on the first call."""
    if _clients is None:
        # Late, since it imports anyio.
        from fal_async._dispatch.binding import load_default_dispatcher

        await load_default_dispatcher()
    return default_client()


def __getattr__(name: str) -> AsyncClient:
    """Make `async_client` on first use, since programs without it need not import the client."""
    if name != "async_client":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fal_async._client.client import AsyncClient  # late, as above

    globals()[name] = client = AsyncClient()
    return client
