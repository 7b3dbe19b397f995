"""One value per event loop, closed when its loop ends."""

from __future__ import annotations

import inspect
import os
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from anyio.lowlevel import current_token

from fal_async._net.background import finish, step

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["PerLoop"]

T = TypeVar("T")

#: Values that only their own loop could have closed, when that loop is gone or another process's.
_unclosable: list[object] = []


@dataclass(frozen=True, slots=True)
class _Slot(Generic[T]):
    value: T
    finalizer: AsyncGenerator[None, None] | None


class PerLoop(Generic[T]):
    """A value for each event loop that asks for it, made on first use.

    Event loops finalise the async generators that are still open when they end (``asyncio.run``,
    ``trio.run`` and uvloop alike), so each value is closed by a generator that is kept open for its
    loop, after the loop's background tasks have ended. Loops are referred to weakly. A forked
    process starts anew: what it inherited is closed at once, and never used.

    Args:
        factory: Makes the value; called in the loop that it is for.
        close: Closes a value when its loop ends. A plain function is preferred: it is also called,
            outside of any loop, for what a forked process inherited. A coroutine function runs only
            in its loop, where all waiting is cancelled. ``None`` if nothing is to be closed.
    """

    def __init__(
        self,
        factory: Callable[[], T],
        close: Callable[[T], Awaitable[None] | None] | None = None,
    ) -> None:
        self._factory = factory
        self._close = close
        self._lock = threading.Lock()
        self._slots: WeakKeyDictionary[object, _Slot[T]] = WeakKeyDictionary()
        _instances.add(self)

    def get(self) -> T:
        """The value of the running event loop."""
        loop = current_token().native_token
        slot = self._slots.get(loop)
        return self._add(loop) if slot is None else slot.value

    def pop(self) -> T | None:
        """Forget the value of the running event loop without closing it; ``None`` without one."""
        with self._lock:
            slot = self._slots.pop(current_token().native_token, None)
        if slot is None:
            return None
        _finish(slot.finalizer)
        return slot.value

    def _add(self, loop: object) -> T:
        self._drop_closed_loops()
        value = self._factory()
        finalizer = None
        if self._close is not None:
            finalizer = _keep(value, self._close, weakref.ref(self._slots), loop)
            step(finalizer.asend(None))
        with self._lock:
            self._slots[loop] = _Slot(value, finalizer)
        return value

    def _drop_closed_loops(self) -> None:
        """Loops that were closed without finalising their generators left their values open."""
        with self._lock:
            closed = [loop for loop in self._slots if getattr(loop, "is_closed", bool)()]
            slots = [self._slots.pop(loop) for loop in closed]
        self._close_slots(slots)

    def reset_after_fork(self) -> None:
        """Close what a forked process has inherited."""
        self._lock = threading.Lock()  # a thread that is not there may hold the old one
        slots = list(self._slots.values())
        self._slots = WeakKeyDictionary()
        self._close_slots(slots)

    def _close_slots(self, slots: list[_Slot[T]]) -> None:
        if inspect.iscoroutinefunction(self._close):
            _unclosable.extend(slots)
            return
        for slot in slots:
            if self._close is not None:
                self._close(slot.value)
            _finish(slot.finalizer)


async def _keep(
    value: T,
    close: Callable[[T], Awaitable[None] | None],
    slots: weakref.ref[WeakKeyDictionary[object, _Slot[T]]],
    loop: object,
) -> AsyncGenerator[None, None]:
    """Close the value when the loop finalises this generator, unless it was popped before."""
    try:
        yield
    finally:
        kept = slots()
        if kept is not None and loop in kept:
            await finish(loop)  # which may use the value
        if kept is None or kept.pop(loop, None) is not None:
            waiting = close(value)
            if inspect.isawaitable(waiting):
                await waiting


def _finish(finalizer: AsyncGenerator[None, None] | None) -> None:
    if finalizer is not None:
        step(finalizer.aclose())


_instances: WeakSet[PerLoop[Any]] = WeakSet()


def _reset_after_fork() -> None:
    for instance in list(_instances):
        instance.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
