"""The running event loop, and the check for cancellation in it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["cancellation_check", "running_loop"]


#: The function of trio, once it is loaded.
_current_trio_token: Callable[[], object] | None = None


def running_loop() -> object:
    """Return the running event loop: that of asyncio, or the token of trio.

    Raises:
        RuntimeError: No event loop is running in this thread.
    """
    global _current_trio_token
    loop = asyncio._get_running_loop()
    # Trio may run as a guest of asyncio.
    if loop is not None and ("trio" not in sys.modules or asyncio.current_task(loop) is not None):
        return loop  # saves most of the calls
    if "trio" in sys.modules:
        if _current_trio_token is None:
            from trio.lowlevel import current_trio_token  # optional, and loaded already

            _current_trio_token = current_trio_token
        try:
            return _current_trio_token()
        except RuntimeError:
            pass
    if loop is None:
        raise RuntimeError("no event loop is running in this thread")
    return loop


def cancellation_check() -> Callable[[], Awaitable[None]]:
    """Return `anyio.lowlevel.checkpoint_if_cancelled` for the running event loop.

    Keep it with what belongs to the loop. The function of anyio finds out the kind of event loop on
    each call, which takes a third of its time.
    """
    check: Callable[[], Awaitable[None]] = current_token().backend_class.checkpoint_if_cancelled
    return check
