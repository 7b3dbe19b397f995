"""The settings of an emulator."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Settings"]


@dataclass(slots=True, kw_only=True)
class Settings:
    """The settings of an emulator. `Emulator` documents each; `Emulator.configure` changes them."""

    concurrency: int | None = None
    attempts: int = 10
    backoff: float = 0.01
    keep_alive: float = 15.0
    log_window: int | None = None
    bandwidth: float | None = None
    compression: bool = False
    clock: Callable[[], float] = time.monotonic
    speed: float = 1.0
    listing_delay: float = 0.0
    webhook_timeouts: tuple[float, float] = (15.0, 120.0)
    private_webhooks: bool = True
    cancelled_webhooks: bool = False
    allow_origins: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise InvalidRequestError(f"speed must be positive, got {self.speed!r}")

    def is_allowed(self, origin: str) -> bool:
        """Return whether web pages of an origin may send requests. Pages of this machine may."""
        if origin in self.allow_origins or "*" in self.allow_origins:
            return True
        try:
            host = urlsplit(origin).hostname or ""
        except ValueError:
            return False
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False
