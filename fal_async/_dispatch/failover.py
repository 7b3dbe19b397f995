"""`Failover`: the temporary replacement of unreachable hosts by their backup hosts."""

from __future__ import annotations

from typing import Final

from fal_async._protocol.origins import BACKUPS, origin_of, replace_origin

__all__ = ["Failover"]

#: How long requests are sent to a backup host after its primary host was unreachable, in seconds.
FAILOVER_DURATION: Final = 300.0


class Failover:
    """The primary hosts that are down, and until when."""

    def __init__(self) -> None:
        self._down_until: dict[str, float] = {}

    def resolve(self, url: str, now: float) -> str:
        """Return the URL to use: on the backup host while the primary host is down."""
        if not self._down_until:
            return url
        origin = origin_of(url)
        until = self._down_until.get(origin or "")
        if origin is None or until is None:
            return url
        if until <= now:
            del self._down_until[origin]
            return url
        return replace_origin(BACKUPS[origin], url)

    def mark_down(self, url: str, now: float) -> bool:
        """Mark the host of a URL as unreachable; return whether a backup host replaces it now.

        If the host is a backup host itself, its primary host is used again.
        """
        origin = origin_of(url)
        if origin is not None and origin in BACKUPS:
            self._down_until[origin] = now + FAILOVER_DURATION
            return True
        for primary, backup in BACKUPS.items():
            if backup == origin:
                self._down_until.pop(primary, None)
        return False
