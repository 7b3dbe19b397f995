"""Where requests go when a host of the platform cannot be reached."""

from __future__ import annotations

from typing import Final

from fal_async._protocol.origins import BACKUPS, origin_of, replace_origin

__all__ = ["Failover"]

#: How long requests go to a backup host once its primary could not be reached, in seconds.
FAILOVER_DURATION: Final = 300.0


class Failover:
    """Remembers which hosts are down."""

    def __init__(self) -> None:
        self._down_until: dict[str, float] = {}

    def resolve(self, url: str, now: float) -> str:
        """The URL to use: that of the backup host while the primary is held to be down."""
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

    def mark_down(self, url: str, now: float) -> str | None:
        """A host could not be reached: the URL at its backup, or ``None`` where there is none."""
        origin = origin_of(url)
        if origin is None or origin not in BACKUPS:
            self._forget(origin)
            return None
        self._down_until[origin] = now + FAILOVER_DURATION
        return replace_origin(BACKUPS[origin], url)

    def _forget(self, backup: str | None) -> None:
        """A backup host could not be reached either: the primary gets its chance again."""
        for primary in [name for name, other in BACKUPS.items() if other == backup]:
            self._down_until.pop(primary, None)
