"""The default client's dispatcher, for objects that were unpickled or made by hand."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from fal_async._net.threads import run_in_thread

if TYPE_CHECKING:
    from fal_async._dispatch.dispatcher import Dispatcher

__all__ = ["default_dispatcher", "load_default_dispatcher"]

_CLIENT = "fal_async._client.client"


def default_dispatcher() -> Dispatcher:
    """Return the dispatcher of the running event loop's default client."""
    # The only import that points up: an unpickled object has no client, so it uses the default one.
    default = import_module("fal_async._client.default")
    dispatcher: Dispatcher = default.default_client()._dispatcher
    return dispatcher


async def load_default_dispatcher() -> Dispatcher:
    """Return the default client's dispatcher, and import the client's code in a worker thread."""
    if _CLIENT not in sys.modules:
        await run_in_thread(lambda: import_module(_CLIENT))
    return default_dispatcher()
