"""Cancellation of asyncio tasks that may resist it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cancel_tasks"]

#: Seconds to wait for all tasks together, and how often they are cancelled in that time.
_TIMEOUT = 2.0
_ATTEMPTS = 10


async def cancel_tasks(find: Callable[[], set[asyncio.Task[Any]]]) -> None:
    """Cancel tasks repeatedly until they have ended, for a limited time.

    Args:
        find: Returns the tasks that have not ended. It is called before each attempt.
    """
    for _ in range(_ATTEMPTS):
        tasks = find()
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_TIMEOUT / _ATTEMPTS)
