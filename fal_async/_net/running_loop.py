"""The running event loop."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["running_loop"]


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
