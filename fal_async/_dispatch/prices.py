"""`PriceCache`: the prices that a client has asked for, by account."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from decimal import Decimal

    from fal_async._core.platform import Price

__all__ = ["PriceCache"]

#: The time for which a price is known: prices change, and are negotiated.
MAX_AGE: Final = timedelta(days=1)


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
