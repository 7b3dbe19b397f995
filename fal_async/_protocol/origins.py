"""Trusted origins, backup hosts, and the failover to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit, urlunsplit

from fal_async._config import split_url
from fal_async._core.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._config import Hosts

__all__ = [
    "BACKUPS",
    "Failover",
    "TrustedOrigins",
    "append_path",
    "is_cdn",
    "origin_of",
    "replace_origin",
    "split_query",
    "with_query",
]


#: The backup origins of the platform, with the same paths and keys.
BACKUPS: Final[Mapping[str, str]] = {
    "https://fal.run": "https://falrun.com",
    "https://queue.fal.run": "https://queue.falrun.com",
}
#: How long requests are sent to a backup host after its primary host was unreachable, in seconds.
FAILOVER_DURATION: Final = 300.0
#: The domain of all CDN hosts.
CDN: Final = "fal.media"

_VISIBLE: Final = bytes(range(0x21, 0x7F))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def origin_of(url: str) -> str | None:
    """Return the scheme, host and port of a URL; ``None`` if it is not a plain absolute URL."""
    parts = split_url(url)
    if parts is None or not parts.hostname or "@" in parts.netloc:
        return None
    if parts.scheme not in _DEFAULT_PORTS:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if parts.port is None or parts.port == _DEFAULT_PORTS[parts.scheme]:
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{parts.port}"


def replace_origin(origin: str, url: str) -> str:
    """Return a URL with its origin replaced."""
    scheme, netloc, *_ = urlsplit(origin)
    return urlunsplit(urlsplit(url)._replace(scheme=scheme, netloc=netloc))


def append_path(url: str, segment: str) -> str:
    """Return a URL with a segment appended to its path. The query is kept."""
    path, mark, query = url.partition("?")
    return f"{path.rstrip('/')}/{segment}{mark}{query}"


def split_query(url: str) -> tuple[str, Secret | None]:
    """Split a presigned URL into the URL and its query, which is a secret."""
    bare, _, query = url.partition("?")
    return bare, Secret(quote(query, safe=_VISIBLE)) if query else None


def with_query(url: str, query: Secret) -> str:
    """Return the URL with its secret query."""
    return f"{url}{'&' if '?' in url else '?'}{query.reveal()}"


def is_cdn(url: str, hosts: Hosts) -> bool:
    """Return whether a URL is at the platform's CDN, which may receive CDN tokens."""
    origin = origin_of(url)
    if origin is None:
        return False
    scheme, _, host = origin.partition("://")
    is_public = scheme == "https" and (host == CDN or host.endswith(f".{CDN}"))
    return is_public or origin == origin_of(hosts.cdn)


class TrustedOrigins:
    """The origins that may receive the key: those of base URLs, and their backups."""

    __slots__ = ("_names", "_prefixes")

    def __init__(self, *base_urls: str) -> None:
        own = {origin for url in base_urls if (origin := origin_of(url))}
        self._names = own | {BACKUPS[origin] for origin in own if origin in BACKUPS}
        self._prefixes = tuple(f"{name}/" for name in self._names)

    def contains(self, url: str) -> bool:
        """Return whether a URL is at one of the origins."""
        if url.startswith(self._prefixes):  # the usual case, without parsing
            return url.isprintable()
        return origin_of(url) in self._names


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
