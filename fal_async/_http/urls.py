"""URLs: origins and request targets."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from fal_async._net.errors import InvalidURL, UnsupportedProtocol

if TYPE_CHECKING:
    import httpx

__all__ = ["Origin", "origin_from_httpx", "parse_url"]


class Origin(NamedTuple):
    """The server that a connection is made to.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: A name in ASCII or an IP address, IPv6 without brackets.
        port: The port.
        server_hostname: The name that the certificate of the server must match; ``None`` for the
            host.
    """

    scheme: str
    host: str
    port: int
    server_hostname: str | None = None


_PORTS: Final = {"http": 80, "https": 443}


#: URLs that need no normalization: names in ASCII, and nothing to resolve or encode.
_is_plain = re.compile(
    r"(https?://[a-z0-9._-]+(?::[0-9]{1,5})?)(/[\w.~!$&'()*+,;=:@%/?-]*)", re.ASCII
).fullmatch


class Target(NamedTuple):
    """The parsed URL of a request.

    Attributes:
        origin: The origin to connect to.
        host: The value of the ``Host`` header.
        path: Path and query.
    """

    origin: Origin
    host: bytes
    path: bytes


@lru_cache(maxsize=256)
def parse_url(url: str) -> Target:
    """Parse a URL.

    The URLs of endpoints repeat. Those of jobs do not, but share their origin.

    Raises:
        InvalidURL: The URL is not valid.
        UnsupportedProtocol: The scheme is not ``http`` or ``https``, or there is no host.
    """
    plain = None if "/." in url or "%" in url else _is_plain(url)
    if plain is None:
        return _parse_with_httpx(url)
    origin, host = _parse_origin(plain[1])
    return Target(origin, host, plain[2].encode("ascii"))


@lru_cache(maxsize=256)
def _parse_origin(prefix: str) -> tuple[Origin, bytes]:
    parts = urlsplit(prefix)
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise InvalidURL(str(error)) from None
    is_default = port == _PORTS[parts.scheme]
    host = parts.netloc.partition(":")[0] if is_default else parts.netloc
    return Origin(parts.scheme, parts.hostname or "", port), host.encode("ascii")


def _parse_with_httpx(url: str) -> Target:
    import httpx  # handles all URLs, but loads slowly

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidURL(str(error)) from error
    return Target(origin_from_httpx(parsed), parsed.netloc, parsed.raw_path)


def origin_from_httpx(url: httpx.URL) -> Origin:
    """Return the origin of a URL.

    Raises:
        UnsupportedProtocol: The scheme is not ``http`` or ``https``, or there is no host.
    """
    try:
        port = url.port or _PORTS[url.scheme]
    except KeyError:
        raise UnsupportedProtocol(
            f"the scheme of the URL must be http or https, got {url.scheme!r}"
        ) from None
    if not url.host:
        raise UnsupportedProtocol("the URL must have a host")
    return Origin(url.scheme, url.raw_host.decode("ascii"), port)
