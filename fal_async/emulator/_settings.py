"""The settings of an emulator."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of an emulator. `Emulator` documents each."""

    concurrency: int | None = None
    attempts: int = 10
    backoff: float = 0.01
    keep_alive: float = 15.0
    log_window: int | None = None
    bandwidth: float | None = None
    compression: bool = False
    clock: Callable[[], float] = time.monotonic
    allow_origins: frozenset[str] = frozenset()

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
