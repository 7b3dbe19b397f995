"""Cancellation of asyncio tasks, for as long as they resist it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cancel_tasks"]

#: How long all tasks together are waited for, in seconds, and how often they are cancelled.
_GRACE_PERIOD = 2.0
_CANCELLATIONS = 10


async def cancel_tasks(find: Callable[[], set[asyncio.Task[Any]]]) -> None:
    """Cancel tasks again and again until they have ended, within a bounded time.

    Args:
        find: Returns the tasks that have not ended; called before each round.
    """
    for _ in range(_CANCELLATIONS):
        tasks = find()
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_GRACE_PERIOD / _CANCELLATIONS)
