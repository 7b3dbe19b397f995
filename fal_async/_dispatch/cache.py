"""Caches of a client: prices, and the URLs of uploaded content."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from decimal import Decimal

    from fal_async._core.platform import Price

__all__ = ["PriceCache", "UploadCache", "reuse_until"]

#: The time for which a price is known: prices change, and are negotiated.
MAX_AGE: Final = timedelta(days=1)
#: The time for which a URL is reused if only the account's settings limit its life, in seconds:
#: half of the shortest common setting.
DEFAULT_REUSE: Final = 1800.0


class PriceCache:
    """Prices of endpoints, each known for a day. An account is known by its credentials."""

    def __init__(self) -> None:
        self._prices: WeakKeyDictionary[object, dict[str, Price]] = WeakKeyDictionary()

    def add(self, account: object, price: Price) -> None:
        """Add or replace a price."""
        self._prices.setdefault(account, {})[price.endpoint_id] = price

    def get(self, account: object, endpoint_id: str) -> Price | None:
        """Return the price of an endpoint; ``None`` if it is unknown or a day old."""
        price = self._prices.get(account, {}).get(endpoint_id)
        if price is None or datetime.now(UTC) - price.as_of > MAX_AGE:
            return None
        return price

    def cost(self, account: object, endpoint_id: str, units: float | None) -> Decimal | None:
        """Return the cost of units; ``None`` if their number or their price is unknown."""
        price = None if units is None else self.get(account, endpoint_id)
        if price is None:
            return None
        from decimal import Decimal  # only known prices need it

        return Decimal(str(units)) * price.unit_price


def reuse_until(uploaded_at: float, lifetime: float | None) -> float:
    """Return the Unix time until which a URL is reused, so that a job in the queue can read it.

    Args:
        uploaded_at: The Unix time of the upload, in seconds.
        lifetime: The life of the file in seconds; ``None`` if only the account's settings limit it.
    """
    return uploaded_at + (DEFAULT_REUSE if lifetime is None else lifetime / 2)


class _Entry:
    """The URL of one content, which one task at a time uploads.

    Attributes:
        lock: Held by the task that uploads the content.
        url: The URL; ``None`` before the first upload.
        reuse_until: The Unix time until which the URL is reused, in seconds.
    """

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.url: str | None = None
        self.reuse_until = 0.0


class UploadCache:
    """The URLs of the content that was used last on one event loop.

    Args:
        size: The number of URLs that are kept; 0 keeps none.
        clock: Returns the Unix time, in seconds.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.time) -> None:
        self.size = size
        self.clock = clock
        self._entries: dict[Hashable, _Entry] = {}

    async def get(
        self, content: Hashable, fetch: Callable[[], Awaitable[tuple[str, float]]]
    ) -> str:
        """Return the URL of a content, which is fetched unless it is known.

        Args:
            content: The digest and the metadata of the content.
            fetch: Uploads the content; returns its URL and the time until which it is reused.
        """
        entry = self._entries.pop(content, None) or _Entry()
        self._entries[content] = entry
        if len(self._entries) > self.size:
            del self._entries[next(iter(self._entries))]
        async with entry.lock:
            if entry.url is None or self.clock() >= entry.reuse_until:
                entry.url, entry.reuse_until = await fetch()
            return entry.url
