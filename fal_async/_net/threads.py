"""Blocking work in worker threads that the library does not share with its user.

A slot belongs to the caller who waits, and is released when that caller goes, be it by
cancellation. The thread may be blocked for as long as it likes after that: it holds up nobody. Each
kind of work has slots of its own, so that a slow disk, a slow name server and an iterator of the
caller's that waits for a camera do not wait for each other.
"""

from __future__ import annotations

import math
import threading
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar
from weakref import WeakSet

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from fal_async._net.tasks import shielded_cleanup
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ResourceClosedError", "ThreadResource", "Work", "decode", "run_in_thread"]

T = TypeVar("T")

#: How many threads may still be blocked in calls of one kind that nobody waits for any more, per
#: event loop. A thread costs memory, so their number must have a bound.
ABANDONED: Final = 256
#: How much received data is decoded at once, which takes milliseconds; more goes to a thread.
LARGE: Final = 262144


class Work(Enum):
    """The kinds of blocking work. The value says what the threads are blocked in."""

    FILES = "files of the library's own choice"
    SOURCES = "iterators and files of uploads"
    LOOKUPS = "lookups of host names"
    CLEANUP = "cleanup"
    DECODING = "decoding"


#: How many calls of each kind may be waited for at once, per event loop. Iterators may wait for
#: each other, so all uploads that a client may send at once by default have room, and more.
SLOTS: Final = {
    Work.FILES: 8,
    Work.SOURCES: 64,
    Work.LOOKUPS: 16,
    Work.CLEANUP: 8,
    Work.DECODING: 4,
}


async def run_in_thread(function: Callable[[], T], work: Work = Work.FILES) -> T:
    """Run a blocking function in a worker thread; a caller that is cancelled abandons it.

    Args:
        function: The work.
        work: Its kind.

    Raises:
        FalClientError: `ABANDONED` threads are still blocked in work of this kind.
    """
    threads = _threads.get(None)
    if threads is None:
        threads = _Threads()
        _threads.set(threads)
    return await threads.run(function, work)


async def decode(function: Callable[[], T], size: int) -> T:
    """Run a pure function on received data: in a worker thread if the data is large.

    There it holds up the event loop no longer than Python takes to switch threads.

    Args:
        function: The function.
        size: How many bytes it decodes.
    """
    return await run_in_thread(function, Work.DECODING) if size > LARGE else function()


class _Threads:
    """The slots of one event loop."""

    def __init__(self) -> None:
        self._slots = {
            work: anyio.Semaphore(slots, fast_acquire=True) for work, slots in SLOTS.items()
        }
        self._abandoned: dict[Work, WeakSet[_Call[Any]]] = {work: WeakSet() for work in Work}
        # Anyio wants a limiter, whose slot a thread holds until it ends, at least on trio.
        self._limiter = anyio.CapacityLimiter(math.inf)

    async def run(self, function: Callable[[], T], work: Work) -> T:
        async with self._slots[work]:
            self._check(work)
            call = _Call(function)
            try:
                return await anyio.to_thread.run_sync(
                    call, abandon_on_cancel=True, limiter=self._limiter
                )
            finally:
                if not call.ended:
                    self._abandoned[work].add(call)

    def _check(self, work: Work) -> None:
        abandoned = self._abandoned[work]
        if len(abandoned) < ABANDONED or work is Work.CLEANUP:
            return
        blocked = [call for call in abandoned if not call.ended]
        self._abandoned[work] = WeakSet(blocked)
        if len(blocked) >= ABANDONED:
            raise FalClientError(
                f"{len(blocked)} worker threads are still blocked in {work.value} whose callers "
                "have been cancelled; let what they read from come to an end"
            )


class _Call(Generic[T]):
    """A call in a thread, and whether it has ended."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.ended = False

    def __call__(self) -> T:
        try:
            return self._function()
        finally:
            self.ended = True


_threads: RunVar[_Threads] = RunVar("fal_async_threads")


class ResourceClosedError(Exception):
    """The resource was closed before the thread could use it."""


class ThreadResource:
    """A resource that worker threads use, one at a time, and that is closed when none does.

    A cancelled caller leaves its thread behind, which may not even have begun. So a thread that is
    still at work closes the resource when it is done, and one that begins later does nothing.

    Args:
        close: Closes what is open; called in any thread, possibly more than once.
        work: The kind of work that the threads do.
    """

    def __init__(self, close: Callable[[], None], work: Work = Work.FILES) -> None:
        self._work = work
        self._close = close
        self._lock = threading.Lock()
        self._closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit:  # the event loop is gone, and nothing can be awaited
            self.close()
        else:
            await self.aclose()

    async def run(self, use: Callable[[], T]) -> T:
        """Use the resource in a thread.

        Raises:
            ResourceClosedError: It is closed.
        """
        return await run_in_thread(partial(self._use, use), self._work)

    def _use(self, use: Callable[[], T]) -> T:
        try:
            with self._lock:
                if self._closing:
                    raise ResourceClosedError
                return use()
        finally:
            if self._closing:
                self.close()

    def close(self) -> None:
        """Close the resource now, or have the thread do so that uses it."""
        self._closing = True
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    async def aclose(self) -> None:
        """Close the resource in a thread, after the one that uses it; the wait is bounded."""
        self._closing = True
        closed = False

        def close() -> None:
            nonlocal closed
            with self._lock:
                closed = True
                self._close()

        try:
            with shielded_cleanup():
                await run_in_thread(close, Work.CLEANUP)
        finally:
            # A second cancellation of an asyncio task gets through the shield.
            if not closed:
                threading.Thread(target=self.close, name="fal-async-close").start()
