"""Pooled and proxied transports; transport selection."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TypeAlias, cast

import httpx

from fal_async._core.secrets import Secret
from fal_async._http.connection import ReceivedBody
from fal_async._http.decoding import DecodedBody
from fal_async._http.encoder import encode_request
from fal_async._http.httpx_adapter import HTTPXBackend
from fal_async._http.mocks import httpx_is_mocked, over_httpx
from fal_async._http.pool import Engine
from fal_async._http.response import StreamedResponse, decode_headers
from fal_async._http.urls import parse_url
from fal_async._net.connect import shared_context
from fal_async._net.errors import InvalidURL, ProxyError
from fal_async._net.event_loops import PerLoop
from fal_async._net.socks import SCHEMES, check_installed
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from fal_async._http.connection import Timeouts
    from fal_async._http.response import Body, Transport
    from fal_async._http.transmission import Transmission
    from fal_async._net.proxies import ProxyRules

__all__ = ["PooledBackend", "ProxiedBackend", "parse_proxy", "select_transport"]


class PooledBackend:
    """Carries exchanges over connections that are kept alive.

    Attributes:
        engine: Keeps them.
    """

    def __init__(self, _pool: Engine) -> None:
        self._pool = _pool

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str | Secret],
        body: Body,
        timeouts: Timeouts,
        transmission: Transmission,
        *,
        query: Secret | None = None,
    ) -> StreamedResponse:
        """Send a request and wait for the head of its response, as `Transport` says."""
        if httpx_is_mocked():
            mock = await over_httpx()
            return await mock.send(method, url, headers, body, timeouts, transmission, query=query)
        origin, host, path = parse_url(url)
        lines = [
            # What a peer has sent, such as an ETag, goes back as it came.
            (name.encode("ascii"), value if isinstance(value, Secret) else value.encode("latin-1"))
            for name, value in headers.items()
        ]
        outgoing = encode_request(method, host, path, lines, body, query)
        incoming = await self._pool.request(origin, outgoing, timeouts, transmission)
        response, rest, _ = incoming
        received = decode_headers(response.headers)
        encoding = received.get("content-encoding")
        if rest is None and encoding is None:
            return StreamedResponse(response.status, received, whole=response.read_body())
        raw = ReceivedBody(response) if rest is None else rest
        body = raw if encoding is None else DecodedBody(raw, encoding)
        return StreamedResponse(response.status, received, rest=body, close=raw.aclose)

    async def prepare(self) -> None:
        """Load the trusted certificates."""
        await self._pool.prepare()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._pool.aclose()


def select_transport(
    transport: httpx.AsyncBaseTransport | None, proxies: Mapping[str, str] | None = None
) -> Transport:
    """The carrier of a client.

    Args:
        transport: What the client was given; ``None`` for the engine, or for the proxies.
        proxies: The proxies as `ProxyRules` takes them; ``None`` for those of the environment.
    """
    if transport is not None:
        import httpx  # which a caller with a transport has loaded

        from fal_async._http.httpx_adapter import (
            HTTPXBackend,  # with httpx, like the two below
            PooledTransport,
        )

        if not isinstance(cast("object", transport), httpx.AsyncBaseTransport):
            kind = type(transport)
            raise InvalidRequestError(
                f"transport must be an httpx.AsyncBaseTransport, such as httpx.AsyncHTTPTransport, "
                f"got a {kind.__module__}.{kind.__qualname__}"
            )

        # A subclass may want to see the requests.
        return (
            PooledBackend(transport._pool)
            if type(transport) is PooledTransport
            else HTTPXBackend(transport)
        )
    named = _proxies() if proxies is None else proxies
    if any(named.get(scheme) for scheme in ("http", "https", "all")):
        from fal_async._net.proxies import ProxyRules  # rarely needed

        if rules := ProxyRules(named):
            return ProxiedBackend(rules, PooledBackend(Engine()))
    return PooledBackend(Engine())


def _proxies() -> Mapping[str, str]:
    """The proxies of this machine, for most of which loading what knows them would be in vain."""
    may_be_kept_elsewhere = sys.platform in {"darwin", "win32"}
    if may_be_kept_elsewhere or any(name.lower().endswith("_proxy") for name in os.environ):
        from urllib.request import getproxies  # slow to import

        return getproxies()
    return {}


_Transports: TypeAlias = dict[str, httpx.AsyncHTTPTransport]


class ProxiedBackend:
    """Carries what the rules cover through httpx's own transport, and the rest over the engine.

    Args:
        rules: Which proxy is for which URL.
        direct: Carries the rest.
    """

    def __init__(self, rules: ProxyRules, direct: PooledBackend) -> None:
        self._rules = rules
        self._direct = direct
        self._proxied: PerLoop[_Transports] = PerLoop(dict, _close)
        self._closed = False

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str | Secret],
        body: Body,
        timeouts: Timeouts,
        transmission: Transmission,
        *,
        query: Secret | None = None,
    ) -> StreamedResponse:
        """Send a request and wait for the head of its response, as `Transport` says.

        Raises:
            ProxyError: The proxy refused, or cannot be used.
        """
        proxy = self._find(url)
        if proxy is None:
            return await self._direct.send(
                method, url, headers, body, timeouts, transmission, query=query
            )
        if self._closed:
            raise RuntimeError("the transport is closed")
        context = await shared_context()
        transports = self._proxied.get()
        if proxy not in transports:
            transports[proxy] = _through(proxy, context)
        foreign = HTTPXBackend(transports[proxy])
        return await foreign.send(method, url, headers, body, timeouts, transmission, query=query)

    def _find(self, url: str) -> str | None:
        try:
            return self._rules.find(httpx.URL(url))
        except httpx.InvalidURL as error:
            raise InvalidURL(str(error)) from error

    async def prepare(self) -> None:
        """Load the trusted certificates."""
        await self._direct.prepare()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        self._closed = True
        try:
            await _close(self._proxied.pop() or {})
        finally:
            await self._direct.aclose()


def parse_proxy(url: str) -> httpx.Proxy:
    """Read the URL of a proxy, and check that the proxy can be used.

    Raises:
        ProxyError: It cannot, as long as nothing changes here.
    """
    try:
        proxy = httpx.Proxy(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise ProxyError(
            f"the proxy of the environment cannot be used: {error}", permanent=True
        ) from error
    if proxy.url.scheme in SCHEMES:
        check_installed()
    return proxy


def _through(proxy: str, context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    # How much goes on at once is for the client to bound.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncHTTPTransport(verify=context, proxy=parse_proxy(proxy), limits=limits)


async def _close(transports: _Transports) -> None:
    while transports:
        _, transport = transports.popitem()
        await transport.aclose()
