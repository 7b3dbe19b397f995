"""How an emulator is configured."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the platform's behaviour depends on; `Emulator` documents each."""

    concurrency: int | None = None
    attempts: int = 10
    backoff: float = 0.01
    keep_alive: float = 15.0
    log_window: int | None = None
    bandwidth: float | None = None
    compression: bool = False
    clock: Callable[[], float] = time.monotonic
    allow_origins: frozenset[str] = frozenset()

    def allows(self, origin: str) -> bool:
        """Whether web pages of an origin may call; those of this machine always may."""
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
