"""Timers on every event loop, which take less time than a cancel scope with a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from fal_async._net.running_loop import running_loop
from fal_async._net.trio_service import TrioService, TrioTimer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timer", "call_later"]

#: A call that is due at some time, unless its ``cancel`` is called before.
Timer: TypeAlias = asyncio.TimerHandle | TrioTimer


def call_later(seconds: float, call: Callable[[], object]) -> Timer:
    """Call a function on the running event loop after a time in seconds."""
    loop = running_loop()
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.call_later(seconds, call)
    return TrioService.current(loop).call_later(seconds, call)
