"""Doors that runners wait at until a test opens them, from any thread and in any event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Gate"]


class Gate:
    """A door that is shut until somebody opens it, and stays open.

    It may be opened from any thread, and waited for in any thread and in any event loop.

    Example:
        >>> gate = Gate()
        >>> gate.open()
        >>> gate.is_open
        True
    """

    __slots__ = ("__weakref__", "_lock", "_open", "_waiters")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._waiters: list[Callable[[], object]] = []

    @property
    def is_open(self) -> bool:
        """Whether the gate has been opened."""
        return self._open

    def open(self) -> None:
        """Open the gate for everyone who waits and everyone who will come."""
        with self._lock:
            self._open = True
            waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()

    def wait_sync(self, timeout: float | None = None) -> bool:
        """Block this thread until the gate is open.

        Args:
            timeout: How many seconds to wait at most; ``None`` waits for ever.

        Returns:
            Whether the gate is open.
        """
        opened = threading.Event()
        if self.when_open(opened.set):
            opened.wait(timeout)
            self._forget(opened.set)
        return self._open

    async def wait(self) -> None:
        """Wait until the gate is open, in whichever event loop this runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            await self._wait_in_thread()
        else:
            await self._wait_in(loop)

    def when_open(self, wake: Callable[[], object]) -> bool:
        """Have `wake` called once the gate opens, in the thread that opens it.

        Returns:
            False if the gate is open already; then `wake` is never called.
        """
        with self._lock:
            if not self._open:
                self._waiters.append(wake)
            return not self._open

    def _forget(self, wake: Callable[[], object]) -> None:
        with self._lock:
            if wake in self._waiters:
                self._waiters.remove(wake)

    async def _wait_in(self, loop: asyncio.AbstractEventLoop) -> None:
        opened = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(opened.set)

        if self.when_open(wake):
            try:
                await opened.wait()
            finally:
                self._forget(wake)

    async def _wait_in_thread(self) -> None:
        opened = threading.Event()
        if self.when_open(opened.set):
            try:
                await anyio.to_thread.run_sync(
                    opened.wait, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
                )
            finally:
                opened.set()  # an abandoned thread must not stay behind
                self._forget(opened.set)
