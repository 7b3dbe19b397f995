"""Blocking work in worker threads, which the library does not share with the application.

A slot belongs to the waiting caller, and is released when the caller returns or is cancelled. A
thread that stays blocked after that delays no other work. Each kind of work has its own slots. So
a slow disk, a slow name server and an upload iterator that waits for a camera do not delay each
other.
"""

from __future__ import annotations

import math
import threading
from enum import Enum
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

#: Maximum number of threads per kind of work and event loop that are blocked after their caller was
#: cancelled. Threads cost memory, so their number must be limited.
MAX_ABANDONED: Final = 256
#: Data up to this size is decoded on the event loop, which takes milliseconds, in bytes.
MAX_INLINE_DECODE: Final = 262144


class Work(Enum):
    """The kinds of blocking work. Error messages contain the value."""

    FILES = "files of the library"
    SOURCES = "iterators and files of uploads"
    LOOKUPS = "lookups of host names"
    CLEANUP = "cleanup"
    DECODING = "decoding"
    STORES = "stores"
    JOURNALS = "journals of batches"


#: Maximum number of concurrent calls of each kind, per event loop. Upload iterators may wait for
#: each other, so there are more slots than uploads that a client sends at once by default.
SLOTS: Final = {
    Work.FILES: 8,
    Work.SOURCES: 64,
    Work.LOOKUPS: 16,
    Work.CLEANUP: 8,
    Work.DECODING: 4,
    Work.STORES: 4,
    Work.JOURNALS: 4,
}


async def run_in_thread(function: Callable[[], T], work: Work = Work.FILES) -> T:
    """Run a blocking function in a worker thread. A cancelled caller does not wait for it.

    Args:
        function: The function.
        work: The kind of work.

    Raises:
        FalClientError: `MAX_ABANDONED` threads are still blocked in work of this kind.
    """
    threads = _threads.get(None)
    if threads is None:
        threads = _Threads()
        _threads.set(threads)
    return await threads.run(function, work)


async def decode(function: Callable[[], T], size: int) -> T:
    """Decode received data, in a worker thread if the data is large.

    A worker thread delays the event loop no longer than Python takes to switch threads.

    Args:
        function: Decodes the data. It has no side effects.
        size: The size of the data, in bytes.
    """
    return await run_in_thread(function, Work.DECODING) if size > MAX_INLINE_DECODE else function()


class _Threads:
    """The slots and threads of one event loop."""

    def __init__(self) -> None:
        self._slots = {
            work: anyio.Semaphore(slots, fast_acquire=True) for work, slots in SLOTS.items()
        }
        self._abandoned: dict[Work, WeakSet[_Call[Any]]] = {work: WeakSet() for work in Work}
        # anyio needs a limiter. On trio, a thread holds its token until it ends.
        self._limiter = anyio.CapacityLimiter(math.inf)

    async def run(self, function: Callable[[], T], work: Work) -> T:
        async with self._slots[work]:
            abandoned = self._abandoned[work]
            if len(abandoned) >= MAX_ABANDONED and work is not Work.CLEANUP:
                blocked = [call for call in abandoned if not call.ended]
                self._abandoned[work] = WeakSet(blocked)
                if len(blocked) >= MAX_ABANDONED:
                    raise FalClientError(
                        f"cannot start a worker thread: {len(blocked)} threads of cancelled "
                        f"callers are still blocked in {work.value}; end the input that they read "
                        "from"
                    )
            call = _Call(function)
            try:
                return await anyio.to_thread.run_sync(
                    call, abandon_on_cancel=True, limiter=self._limiter
                )
            finally:
                if not call.ended:
                    self._abandoned[work].add(call)


class _Call(Generic[T]):
    """A function call in a thread."""

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
    """A resource that worker threads use, one at a time.

    The thread of a cancelled caller continues, or may not have started yet. A thread that still
    uses the resource closes it in the end. A thread that starts later does nothing.

    Args:
        close: Closes the resource; called in any thread, possibly more than once.
        work: The kind of work that the threads do.
    """

    def __init__(self, close: Callable[[], None], work: Work = Work.FILES) -> None:
        self._work = work
        self._close = close
        self._lock = threading.Lock()
        self._closing = False
        self._released = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._released:
            self._closing = True
        elif kind is GeneratorExit:  # a closed coroutine cannot wait
            self.close()
        else:
            await self.aclose()

    def release(self) -> None:
        """Leave the resource as it is, because nothing of it is left to close."""
        self._released = True

    async def run(self, use: Callable[[], T]) -> T:
        """Use the resource in a thread.

        Raises:
            ResourceClosedError: The resource is closed.
        """

        def use_or_close() -> T:
            try:
                with self._lock:
                    if self._closing:
                        raise ResourceClosedError
                    return use()
            finally:
                if self._closing:
                    self.close()

        return await run_in_thread(use_or_close, self._work)

    def close(self) -> None:
        """Close the resource now, or after the thread that uses it."""
        self._closing = True
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    async def aclose(self) -> None:
        """Close the resource in a thread, after the one that uses it; wait for a limited time."""
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
