"""The running event loop."""

from __future__ import annotations

import asyncio
import sys

__all__ = ["running_loop"]


def running_loop() -> object:
    """Return the running event loop: that of asyncio, or the token of trio.

    Raises:
        RuntimeError: No event loop is running in this thread.
    """
    loop = asyncio._get_running_loop()
    # Trio may run as a guest of asyncio.
    if loop is not None and ("trio" not in sys.modules or asyncio.current_task(loop) is not None):
        return loop  # saves most of the calls
    if "trio" in sys.modules:
        from trio.lowlevel import current_trio_token  # it is loaded, but may not be installed

        try:
            return current_trio_token()
        except RuntimeError:
            pass
    if loop is None:
        raise RuntimeError("no event loop is running in this thread")
    return loop
