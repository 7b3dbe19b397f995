"""`MemoryStore`: values in the memory of one process."""

from __future__ import annotations

import threading
import time
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from fal_async.stores._protocol import check_entry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MemoryStore"]


class MemoryStore:
    """A store in the memory of one process, for any number of tasks and threads.

    Its memory is bounded by the lifetimes of the values: an expired value is removed by the next
    call that sets one.

    Args:
        clock: Returns the time in seconds.

    Example:
        >>> async def main() -> None:
        ...     store = fal_async.stores.MemoryStore()
        ...     await store.set("job", "done", expires_in=3600)
        ...     print(await store.get("job"), await store.get("other"))
        >>> anyio.run(main)
        done None
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[str, tuple[float, str]] = {}
        self._expiry_heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._values)

    async def add(self, key: str, value: str, *, expires_in: float) -> bool:
        """Set the value of a key that has none; see `Store.add`.

        Args:
            key: The key.
            value: The value.
            expires_in: The lifetime of the value, in seconds.

        Returns:
            False if the key has a value. It stays as it is.

        Raises:
            InvalidRequestError: Key or value is not text, or the lifetime is not positive.
        """
        check_entry(key, value, expires_in)
        with self._lock:
            self._remove_expired()
            if key in self._values:
                return False
            self._put(key, value, expires_in)
            return True

    async def get(self, key: str) -> str | None:
        """Return the value of a key; ``None`` if it has none, or has expired."""
        expires_at, value = self._values.get(key, (0.0, None))
        return value if self._clock() < expires_at else None

    async def set(self, key: str, value: str, *, expires_in: float) -> None:
        """Set the value of a key, and replace the one that it has.

        Args:
            key: The key.
            value: The value.
            expires_in: The lifetime of the value, in seconds.

        Raises:
            InvalidRequestError: Key or value is not text, or the lifetime is not positive.
        """
        check_entry(key, value, expires_in)
        with self._lock:
            self._remove_expired()
            self._put(key, value, expires_in)

    async def delete(self, key: str) -> None:
        """Remove the value of a key, if it has one."""
        with self._lock:
            self._values.pop(key, None)

    def _put(self, key: str, value: str, expires_in: float) -> None:
        expires_at = self._clock() + expires_in
        self._values[key] = (expires_at, value)
        heappush(self._expiry_heap, (expires_at, key))

    def _remove_expired(self) -> None:
        now = self._clock()
        while self._expiry_heap and self._expiry_heap[0][0] <= now:
            _, key = heappop(self._expiry_heap)
            # A value that was set again since has a later entry of its own.
            if key in self._values and self._values[key][0] <= now:
                del self._values[key]
