"""Blocking work in worker threads that the library does not share with its user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_thread"]

T = TypeVar("T")

#: How many calls may be in threads at once, per event loop.
THREADS: Final = 8
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("fal_async_threads")


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a worker thread; a caller that is cancelled leaves it behind.

    Anyio's own limiter is the application's: a busy one would hold up the library.
    """
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiter)
