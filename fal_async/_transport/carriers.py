"""What carries exchanges over the engine, and the choice of it for a client."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from fal_async._secret import Secret
from fal_async._transport.connection import ReceivedBody
from fal_async._transport.decoding import DecodedBody
from fal_async._transport.encoding import compose
from fal_async._transport.engine import Engine
from fal_async._transport.exchange import OpenReply
from fal_async._transport.mocks import httpx_is_mocked, over_httpx
from fal_async._transport.targets import locate
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx

    from fal_async._transport.connection import Timeouts
    from fal_async._transport.exchange import Body, Carrier
    from fal_async._transport.transmission import Transmission

__all__ = ["Pooled", "carrier_of", "headers_of"]


class Pooled:
    """Carries exchanges over connections that are kept alive.

    Attributes:
        engine: Keeps them.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def carry(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str | Secret],
        body: Body,
        timeouts: Timeouts,
        transmission: Transmission,
        *,
        query: Secret | None = None,
    ) -> OpenReply:
        """Send a request and wait for the head of its reply, as `Carrier` says."""
        if httpx_is_mocked():
            mock = await over_httpx()
            return await mock.carry(method, url, headers, body, timeouts, transmission, query=query)
        origin, host, path = locate(url)
        lines = [
            # What a peer has sent, such as an ETag, goes back as it came.
            (name.encode("ascii"), value if isinstance(value, Secret) else value.encode("latin-1"))
            for name, value in headers.items()
        ]
        outgoing = compose(method, host, path, lines, body, query)
        incoming = await self.engine.exchange(origin, outgoing, timeouts, transmission)
        reply, rest, _ = incoming
        received = headers_of(reply.headers)
        encoding = received.get("content-encoding")
        if rest is None and encoding is None:
            return OpenReply(reply.status, received, whole=reply.take())
        raw = ReceivedBody(reply) if rest is None else rest
        body = raw if encoding is None else DecodedBody(raw, encoding)
        return OpenReply(reply.status, received, rest=body, close=raw.aclose)

    async def prepare(self) -> None:
        """Load the trusted certificates."""
        await self.engine.prepare()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self.engine.aclose()


def carrier_of(
    transport: httpx.AsyncBaseTransport | None, proxies: Mapping[str, str] | None = None
) -> Carrier:
    """The carrier of a client.

    Args:
        transport: What the client was given; ``None`` for the engine, or for the proxies.
        proxies: The proxies as `ProxyRules` takes them; ``None`` for those of the environment.
    """
    if transport is not None:
        import httpx  # which a caller with a transport has loaded

        from fal_async._transport.foreign import Foreign  # with httpx, like the two below
        from fal_async._transport.pool import PooledTransport

        if not isinstance(cast("object", transport), httpx.AsyncBaseTransport):
            kind = type(transport)
            raise InvalidRequestError(
                f"transport must be an httpx.AsyncBaseTransport, such as httpx.AsyncHTTPTransport, "
                f"got a {kind.__module__}.{kind.__qualname__}"
            )

        # A subclass may want to see the requests.
        return (
            Pooled(transport.engine) if type(transport) is PooledTransport else Foreign(transport)
        )
    named = _proxies() if proxies is None else proxies
    if any(named.get(scheme) for scheme in ("http", "https", "all")):
        from fal_async._transport.proxies import Proxied, ProxyRules

        if rules := ProxyRules(named):
            return Proxied(rules, Pooled(Engine()))
    return Pooled(Engine())


def _proxies() -> Mapping[str, str]:
    """The proxies of this machine, for most of which loading what knows them would be in vain."""
    may_be_kept_elsewhere = sys.platform in {"darwin", "win32"}
    if may_be_kept_elsewhere or any(name.lower().endswith("_proxy") for name in os.environ):
        from urllib.request import getproxies

        return getproxies()
    return {}


def headers_of(received: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case; values of repeated headers are joined by commas."""
    headers: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}  # joined once, so that many of a name cost no more each
    for raw_name, raw_value in received:
        name, value = _name(raw_name), raw_value.decode("latin-1")
        if name in headers:
            repeated.setdefault(name, [headers[name]]).append(value)
        else:
            headers[name] = value
    for name, values in repeated.items():
        headers[name] = ", ".join(values)
    return headers


@lru_cache(maxsize=1024)
def _name(raw: bytes) -> str:
    return raw.decode("latin-1").lower()
