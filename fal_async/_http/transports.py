"""Transport selection, and the transport over the connection pool."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._http.encoder import encode_headers, encode_request
from fal_async._http.pool import HTTPConnectionPool
from fal_async._http.response import StreamedResponse, decode_headers
from fal_async._http.urls import parse_url
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from fal_async._core.secrets import Secret
    from fal_async._http.connection import Timeouts
    from fal_async._http.encoder import EncodedHeaders
    from fal_async._http.response import Body, ConnectionCounts, Transport
    from fal_async._http.transmission import Transmission

__all__ = ["PooledBackend", "httpx_is_mocked", "select_transport"]


def select_transport(
    transport: httpx.AsyncBaseTransport | None, proxies: Mapping[str, str] | None = None
) -> Transport:
    """Return the transport of a client.

    Args:
        transport: The transport that the user has passed; ``None`` for the connection pool.
        proxies: The proxies, as `ProxyRules` takes them; ``None`` for those of the environment.
    """
    if transport is not None:
        import httpx  # the user of a transport has loaded it

        from fal_async._http.httpx_backend import HTTPXBackend  # loads httpx
        from fal_async._http.httpx_transport import PooledTransport  # loads httpx

        if not isinstance(cast("object", transport), httpx.AsyncBaseTransport):
            kind = type(transport)
            raise InvalidRequestError(
                f"transport must be an httpx.AsyncBaseTransport, such as httpx.AsyncHTTPTransport, "
                f"got a {kind.__module__}.{kind.__qualname__}"
            )
        if type(transport) is PooledTransport:  # a subclass may override its methods
            return PooledBackend(transport._pool)
        return HTTPXBackend(transport)
    pooled = PooledBackend(HTTPConnectionPool())
    if proxies is None:
        # Most environments have no proxies, and urllib loads slowly.
        has_system_settings = sys.platform in {"darwin", "win32"}
        if has_system_settings or any(name.lower().endswith("_proxy") for name in os.environ):
            from urllib.request import getproxies  # loads slowly

            proxies = getproxies()
        else:
            proxies = {}
    if any(proxies.get(scheme) for scheme in ("http", "https", "all")):
        from fal_async._http.httpx_backend import ProxiedBackend  # loads httpx
        from fal_async._net.proxies import ProxyRules  # loads urllib

        if rules := ProxyRules(proxies):
            return ProxiedBackend(rules, pooled)
    return pooled


class PooledBackend:
    """Sends requests over the connection pool.

    Args:
        pool: The pool.
    """

    def __init__(self, pool: HTTPConnectionPool) -> None:
        self._pool = pool

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body,
        timeouts: Timeouts,
        transmission: Transmission,
        authorization: Secret | None = None,
        query: Secret | None = None,
    ) -> StreamedResponse:
        """Send a request and wait for the head of its response; see `Transport.send`."""
        if httpx_is_mocked():
            from fal_async._http.httpx_backend import mocked_backend  # the mock has loaded httpx

            mocked = await mocked_backend()
            return await mocked.send(
                method, url, headers, body, timeouts, transmission, authorization, query
            )
        origin, host, path = parse_url(url)
        encoded = _encode_headers(host, tuple(headers.items()))
        request = encode_request(
            method, path, encoded, body, authorization=authorization, query=query
        )
        response, stream, _ = await self._pool.request(origin, request, timeouts, transmission)
        return StreamedResponse(
            response.status,
            decode_headers(response.headers),
            response.read_body() if stream is None else stream,
        )

    async def prepare(self) -> None:
        """Load the trusted certificates."""
        await self._pool.prepare()

    def count_connections(self) -> ConnectionCounts:
        """Return the numbers of connections of the running event loop."""
        return self._pool.count_connections()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._pool.aclose()


@lru_cache(maxsize=256)
def _encode_headers(host: bytes, headers: tuple[tuple[str, str], ...]) -> EncodedHeaders:
    """Encode headers, which are mostly those of an earlier request."""
    # Values that a peer has sent, such as an ETag, are returned byte by byte.
    encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    return encode_headers(host, encoded)


#: The attributes that mocks replace. Tracing does not replace them, or wraps them in a way that
#: shows the original.
_MOCKED_ATTRIBUTES: Final = (
    ("httpx", "AsyncHTTPTransport", "handle_async_request"),
    ("httpx", "AsyncClient", "_transport_for_url"),
    ("httpcore", "AsyncConnectionPool", "handle_async_request"),
    ("httpcore", "AsyncHTTPConnection", "handle_async_request"),
)
#: The values of these attributes at the last check that found no mock.
_originals: list[Any] = []


def httpx_is_mocked() -> bool:
    """Return whether a mock has replaced the transport of httpx.

    Tests with respx, pytest-httpx, vcrpy or a patch of their own rely on it that no request reaches
    the platform. The connection pool does not use httpx, so it must look for mocks itself.
    """
    global _originals
    if "httpx" not in sys.modules:  # every mock imports it
        return False
    found = [
        getattr(getattr(sys.modules[package], kind), method)
        for package, kind, method in _MOCKED_ATTRIBUTES
        if package in sys.modules
    ]
    if found == _originals:
        return False
    for method in found:
        # A wrapper may copy `__module__`, but not the globals.
        module: str = getattr(method, "__globals__", {}).get("__name__", "")
        if module.partition(".")[0] not in {"httpx", "httpcore"}:
            return True
    _originals = found
    return False
