"""`Gate`: an event across threads and event loops."""

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
    """An event that blocks runners until a test opens it. An open gate stays open.

    A gate can be opened from any thread. It can be waited for in any thread and in any event loop,
    also in several at once. `Emulator.gate` creates a gate that opens when the emulator stops.

    Example:
        >>> from fal_async.emulator import Emulator
        >>> with Emulator() as fal:
        ...     gate = fal.gate()
        ...
        ...     @fal.endpoint("acme/app")
        ...     async def app(arguments: dict[str, int]) -> dict[str, int]:
        ...         await gate.wait()
        ...         return arguments
        ...
        ...     gate.open()
        >>> gate.is_open
        True
    """

    __slots__ = ("__weakref__", "_callbacks", "_lock", "_open")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def is_open(self) -> bool:
        """True if the gate has been opened."""
        return self._open

    def open(self) -> None:
        """Open the gate, now and for all later waits."""
        with self._lock:
            self._open = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def wait_sync(self, timeout: float | None = None) -> bool:
        """Block this thread until the gate is open.

        Args:
            timeout: The maximum time to wait, in seconds. ``None`` disables the timeout.

        Returns:
            Whether the gate is open.
        """
        opened = threading.Event()
        if self._on_open(opened.set):
            opened.wait(timeout)
            self._remove(opened.set)
        return self._open

    async def wait(self) -> None:
        """Wait until the gate is open, on asyncio or trio."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio
            opened = threading.Event()
            if self._on_open(opened.set):
                try:
                    await anyio.to_thread.run_sync(
                        opened.wait, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
                    )
                finally:
                    opened.set()  # ends the thread if the wait was cancelled
                    self._remove(opened.set)
            return
        event = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(event.set)

        if self._on_open(wake):
            try:
                await event.wait()
            finally:
                self._remove(wake)

    def _on_open(self, callback: Callable[[], object]) -> bool:
        """Call `callback` once the gate opens, in the thread that opens it.

        Returns:
            False if the gate is open already. The callback is not called then.
        """
        with self._lock:
            if not self._open:
                self._callbacks.append(callback)
            return not self._open

    def _remove(self, callback: Callable[[], object]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
