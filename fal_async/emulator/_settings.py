"""How an emulator is configured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
