"""URL to origin and request target."""

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
    """What connections are made to.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: A name in ASCII or an IP address, IPv6 without brackets.
        port: The port.
        server_hostname: The name that the peer's certificate has to be for; ``None`` for the host.
    """

    scheme: str
    host: str
    port: int
    server_hostname: str | None = None


_PORTS: Final = {"http": 80, "https": 443}


#: URLs that say what they mean: names in ASCII, and nothing that is to be resolved or encoded.
_is_plain = re.compile(
    r"(https?://[a-z0-9._-]+(?::[0-9]{1,5})?)(/[\w.~!$&'()*+,;=:@%/?-]*)", re.ASCII
).fullmatch


class Target(NamedTuple):
    """Where a request goes.

    Attributes:
        origin: What to connect to.
        host: What the request names as its host.
        path: Path and query.
    """

    origin: Origin
    host: bytes
    path: bytes


def parse_url(url: str) -> Target:
    """Where a URL leads.

    Most URLs of a job are its own, so all that costs is kept for what they share.

    Raises:
        InvalidURL: It is not a URL.
        UnsupportedProtocol: It is not a URL of HTTP.
    """
    plain = None if "/." in url or "%" in url else _is_plain(url)
    if plain is None:
        return _parse_with_httpx(url)
    origin, host = _split_root(plain[1])
    return Target(origin, host, plain[2].encode("ascii"))


@lru_cache(maxsize=256)
def _split_root(root: str) -> tuple[Origin, bytes]:
    parts = urlsplit(root)
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as error:
        raise InvalidURL(str(error)) from None
    own = port == _PORTS[parts.scheme]
    host = parts.netloc.partition(":")[0] if own else parts.netloc
    return Origin(parts.scheme, parts.hostname or "", port), host.encode("ascii")


@lru_cache(maxsize=256)
def _parse_with_httpx(url: str) -> Target:
    import httpx  # knows what to do with every URL there is, but takes long to load

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidURL(str(error)) from error
    return Target(origin_from_httpx(parsed), parsed.netloc, parsed.raw_path)


def origin_from_httpx(url: httpx.URL) -> Origin:
    """What a connection for a URL is made to.

    Raises:
        UnsupportedProtocol: It is not a URL of HTTP.
    """
    try:
        port = url.port or _PORTS[url.scheme]
    except KeyError:
        raise UnsupportedProtocol(f"{url.scheme!r} is not http or https") from None
    if not url.host:
        raise UnsupportedProtocol("the URL has no host")
    return Origin(url.scheme, url.raw_host.decode("ascii"), port)
