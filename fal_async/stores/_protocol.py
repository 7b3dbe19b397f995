"""`Store`: the interface of stores, and the checks of its arguments."""

from __future__ import annotations

from typing import Protocol

from fal_async._core.checks import check_instance, check_number

__all__ = ["Store", "check_entry"]


class Store(Protocol):
    """Keep small values under text keys for a limited time.

    All methods may be called by any number of tasks at once. An implementation raises its own
    errors when it is unavailable.

    Example:
        >>> async def main(store: Store) -> None:
        ...     print(await store.add("job", "first", expires_in=60))
        ...     print(await store.add("job", "second", expires_in=60))
        ...     print(await store.get("job"))
        >>> anyio.run(main, fal_async.stores.MemoryStore())
        True
        False
        first
    """

    async def add(self, key: str, value: str, *, expires_in: float) -> bool:
        """Set the value of a key that has none.

        Of several concurrent calls with the same key, one sets its value.

        Args:
            key: The key.
            value: The value.
            expires_in: The lifetime of the value, in seconds.

        Returns:
            False if the key has a value. It stays as it is.
        """
        ...

    async def get(self, key: str) -> str | None:
        """Return the value of a key; ``None`` if it has none, or has expired."""
        ...

    async def set(self, key: str, value: str, *, expires_in: float) -> None:
        """Set the value of a key, and replace the one that it has.

        Args:
            key: The key.
            value: The value.
            expires_in: The lifetime of the value, in seconds.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove the value of a key, if it has one."""
        ...


def check_entry(key: object, value: object, expires_in: object) -> None:
    """Check the arguments of `Store.add` and `Store.set`."""
    check_instance("key", key, str)
    check_instance("value", value, str)
    check_number("expires_in", expires_in, unit=" of seconds")
