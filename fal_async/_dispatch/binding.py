"""The dispatcher of the default client, for objects that were unpickled or made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_async._dispatch.dispatcher import Dispatcher

__all__ = ["default_dispatcher", "load_default_dispatcher"]


def default_dispatcher() -> Dispatcher:
    """Return the dispatcher of the running event loop's default client."""
    # The one import that points up: what was unpickled has no client, and uses the default one.
    from fal_async._client.default import default_client

    return default_client()._dispatcher


async def load_default_dispatcher() -> Dispatcher:
    """Return the same, and import the client's code in a worker thread if it is not loaded."""
    # See above.
    from fal_async._client.default import load_default_client

    return (await load_default_client())._dispatcher
