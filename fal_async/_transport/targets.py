"""Where a URL leads: what to connect to, and what to ask for there."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import httpx

from fal_async._transport.places import Origin

__all__ = ["locate", "origin_of"]

_PORTS: Final = {"http": 80, "https": 443}
#: URLs that httpx would leave as they are, but for what stands before the path.
_is_plain = re.compile(r"(https?://[\w.:\[\]-]+)(/[\w.~!$&'()*+,;=:@%/?-]*)", re.ASCII).fullmatch


class _Place(NamedTuple):
    origin: Origin
    host: bytes
    target: bytes


def locate(url: str) -> tuple[Origin, bytes, bytes]:
    """The origin of a URL, its host as a request names it, and path with query.

    Most URLs of a job are its own, so all that costs is kept for what they share.

    Raises:
        httpx.InvalidURL: It is not a URL.
        httpx.UnsupportedProtocol: It is not a URL of HTTP.
    """
    plain = None if "/." in url or "%" in url else _is_plain(url)
    if plain is None:
        return _parse(url)
    origin, host, _ = _parse(plain[1])
    return origin, host, plain[2].encode("ascii")


@lru_cache(maxsize=256)
def _parse(url: str) -> _Place:
    parsed = httpx.URL(url)
    return _Place(origin_of(parsed), parsed.netloc, parsed.raw_path)


def origin_of(url: httpx.URL) -> Origin:
    """What a connection for a URL is made to.

    Raises:
        httpx.UnsupportedProtocol: It is not a URL of HTTP.
    """
    try:
        port = url.port or _PORTS[url.scheme]
    except KeyError:
        raise httpx.UnsupportedProtocol(f"{url.scheme!r} is not http or https") from None
    if not url.host:
        raise httpx.UnsupportedProtocol("the URL has no host")
    return Origin(url.scheme, url.raw_host.decode("ascii"), port)
