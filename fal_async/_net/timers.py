"""Timers on every event loop, which take less time than a cancel scope with a deadline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from fal_async._net.running_loop import running_loop
from fal_async._net.trio_service import TrioService, TrioTimer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timer", "call_later", "find_call_later"]

#: A call that is due at some time, unless its ``cancel`` is called before.
Timer: TypeAlias = asyncio.TimerHandle | TrioTimer


def call_later(seconds: float, call: Callable[[], object]) -> Timer:
    """Call a function on the running event loop after a time in seconds."""
    loop = running_loop()
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.call_later(seconds, call)
    return TrioService.current(loop).call_later(seconds, call)


def find_call_later() -> Callable[[float, Callable[[], object]], Timer]:
    """Return `call_later` for an object that belongs to the running event loop, if there is one."""
    try:
        loop = running_loop()
    except RuntimeError:
        return call_later
    if isinstance(loop, asyncio.AbstractEventLoop):
        return call_later
    return TrioService.current(loop).call_later
