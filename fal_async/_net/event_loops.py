"""One value per event loop, closed when its loop ends."""

from __future__ import annotations

import inspect
import os
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from fal_async._net.background import finish, run_nowait
from fal_async._net.running_loop import running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["PerLoop"]

T = TypeVar("T")

#: Values of ended loops, and of loops of the parent process, that only their loop could close.
_unclosable: list[object] = []


@dataclass(frozen=True, slots=True)
class _Slot(Generic[T]):
    value: T
    finalizer: AsyncGenerator[None, None] | None


class PerLoop(Generic[T]):
    """One value for each event loop, created on first use.

    When an event loop ends, it finalizes the async generators that are still open
    (``asyncio.run``, ``trio.run`` and uvloop alike). So a generator that is kept open for the loop
    closes the value, after the loop's background tasks have ended. References to loops are weak. A
    forked process closes the values that it inherited at once, and creates its own.

    Args:
        factory: Creates the value; called in the loop that it is for.
        close: Closes a value when its loop ends. A plain function is preferred: it is also called,
            outside of any loop, for the values that a forked process inherited. A coroutine
            function runs only in its loop, where all waiting is cancelled. ``None`` if values need
            no cleanup.
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
        """Return the value of the running event loop."""
        loop = running_loop()
        slot = self._slots.get(loop)
        if slot is not None:
            return slot.value
        # The values of loops that were closed without finalizing their generators are still open.
        with self._lock:
            closed = [other for other in self._slots if getattr(other, "is_closed", bool)()]
            slots = [self._slots.pop(other) for other in closed]
        self._close_slots(slots)
        value = self._factory()
        finalizer = None
        if self._close is not None:
            finalizer = _close_on_shutdown(value, self._close, weakref.ref(self._slots), loop)
            run_nowait(finalizer.asend(None))
        with self._lock:
            self._slots[loop] = _Slot(value, finalizer)
        return value

    def pop(self) -> T | None:
        """Remove and return the value of the running event loop, if any, without closing it."""
        with self._lock:
            slot = self._slots.pop(running_loop(), None)
        if slot is None:
            return None
        _stop_finalizer(slot.finalizer)
        return slot.value

    def reset_after_fork(self) -> None:
        """Close the values that a forked process has inherited."""
        self._lock = threading.Lock()  # a thread of the parent may hold the old one
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
            _stop_finalizer(slot.finalizer)


async def _close_on_shutdown(
    value: T,
    close: Callable[[T], Awaitable[None] | None],
    slots: weakref.ref[WeakKeyDictionary[object, _Slot[T]]],
    loop: object,
) -> AsyncGenerator[None, None]:
    """Close the value when the loop finalises this generator, unless it was popped before."""
    try:
        yield
    finally:
        known = slots()
        if known is not None and loop in known:
            await finish(loop)  # background tasks may use the value
        if known is None or known.pop(loop, None) is not None:
            closing = close(value)
            if inspect.isawaitable(closing):
                await closing


def _stop_finalizer(finalizer: AsyncGenerator[None, None] | None) -> None:
    if finalizer is not None:
        run_nowait(finalizer.aclose())


_instances: WeakSet[PerLoop[Any]] = WeakSet()


def _reset_after_fork() -> None:
    for instance in list(_instances):
        instance.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
