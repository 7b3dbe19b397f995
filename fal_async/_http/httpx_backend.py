"""Transports over httpx: one passed by the user, proxies, and mocks of tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import anyio
import httpx

from fal_async._http.response import StreamedResponse, decode_headers
from fal_async._net.connect import shared_context
from fal_async._net.errors import (
    ConnectError,
    ConnectTimeout,
    InvalidURL,
    LocalProtocolError,
    PoolTimeout,
    ProxyError,
    ReadError,
    UnsupportedProtocol,
    from_httpx_error,
)
from fal_async._net.event_loops import PerLoop
from fal_async._net.proxies import parse_proxy
from fal_async._protocol.origins import with_query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from fal_async._core.secrets import Secret
    from fal_async._http.connection import Timeouts
    from fal_async._http.response import Body, ConnectionCounts, Transport
    from fal_async._http.transmission import Transmission
    from fal_async._net.proxies import ProxyRules

__all__ = ["HTTPXBackend", "ProxiedBackend", "mocked_backend"]

#: Errors that a transport raises before it sends anything.
_UNSENT: Final = (
    ConnectError,
    ConnectTimeout,
    LocalProtocolError,
    PoolTimeout,
    ProxyError,
    UnsupportedProtocol,
)

_parse_url = lru_cache(maxsize=256)(httpx.URL)


class HTTPXBackend:
    """Sends requests over a transport of httpx.

    Args:
        transport: The transport.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

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
        extensions: dict[str, Any] = {"timeout": timeouts}
        has_trace = type(self._transport) is httpx.AsyncHTTPTransport  # others may not support it
        if has_trace:

            async def record_sent(event: str, info: Mapping[str, Any]) -> None:
                is_headers = event == "http11.send_request_headers.started"
                if is_headers and info["request"].method != b"CONNECT":  # that goes to a proxy
                    transmission.sent = True

            extensions["trace"] = record_sent
        try:
            # A traceback shows the URL of an httpx.Request, so no variable may refer to it.
            responding = self._transport.handle_async_request(
                httpx.Request(
                    method,
                    _parse_url(url if query is None else with_query(url, query)),
                    headers=_raw_headers(headers, authorization),
                    content=body,
                    extensions=extensions,
                )
            )
            if not has_trace:
                transmission.sent = True
            response = await responding
        except httpx.InvalidURL as error:
            raise InvalidURL(str(error)) from error
        except httpx.RequestError as error:
            kind = from_httpx_error(error)
            if issubclass(kind, _UNSENT):
                transmission.sent = False
            raise kind(str(error)) from error
        stream = _ResponseStream(response)
        return StreamedResponse(
            response.status_code,
            decode_headers(response.headers.raw),
            stream,
            is_decoded=stream.is_decoded,
        )

    def count_connections(self) -> None:
        """Return ``None``: transports of httpx do not tell."""

    async def prepare(self) -> None:
        """Do nothing: a transport of httpx has no preparation."""

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


def _raw_headers(
    headers: Mapping[str, str], authorization: Secret | None
) -> list[tuple[bytes, bytes]]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    if authorization is None:
        return raw
    return [*raw, (b"authorization", authorization.reveal().encode("ascii"))]


class _ResponseStream:
    """The body of a response of httpx, as it was sent.

    Attributes:
        is_decoded: Whether the transport has read and decompressed it already.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._scope = anyio.CancelScope()
        stream = response.stream
        was_read = response.is_stream_consumed and not isinstance(stream, httpx.ByteStream)
        self.is_decoded = was_read or not isinstance(stream, httpx.AsyncByteStream)
        self._chunks: AsyncIterator[bytes] = (
            aiter(stream)
            if isinstance(stream, httpx.AsyncByteStream) and not was_read
            else response.aiter_bytes()
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._scope.cancel_called:
            raise ReadError("the read was interrupted")
        try:
            with anyio.CancelScope() as self._scope:
                return await anext(self._chunks)
        except httpx.RequestError as error:
            raise from_httpx_error(error)(str(error)) from error
        raise ReadError("the read was interrupted")

    def interrupt(self) -> None:
        """Cancel the read; see `BodyStream.interrupt`."""
        self._scope.cancel()

    async def aclose(self) -> None:
        """Close the response."""
        chunks = self._chunks
        try:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        finally:
            await self._response.aclose()


_Transports: TypeAlias = dict[str, httpx.AsyncHTTPTransport]


class ProxiedBackend:
    """Sends requests through proxies, over the transport of httpx, or directly.

    Args:
        rules: The rules that select the proxy of a URL.
        direct: The transport for URLs without a proxy.
    """

    def __init__(self, rules: ProxyRules, direct: Transport) -> None:
        self._rules = rules
        self._direct = direct
        self._proxied: PerLoop[_Transports] = PerLoop(dict, _close)
        self._closed = False

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
        """Send a request and wait for the head of its response; see `Transport.send`.

        Raises:
            ProxyError: The proxy refused the request, or cannot be used.
        """
        try:
            proxy = self._rules.find(httpx.URL(url))
        except httpx.InvalidURL as error:
            raise InvalidURL(str(error)) from error
        if proxy is None:
            return await self._direct.send(
                method, url, headers, body, timeouts, transmission, authorization, query
            )
        if self._closed:
            raise RuntimeError("the transport is closed")
        context = await shared_context()
        transports = self._proxied.get()
        if proxy not in transports:
            # The limits of the client apply, not those of the transport.
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            transports[proxy] = httpx.AsyncHTTPTransport(
                verify=context, proxy=parse_proxy(proxy), limits=limits
            )
        backend = HTTPXBackend(transports[proxy])
        return await backend.send(
            method, url, headers, body, timeouts, transmission, authorization, query
        )

    def count_connections(self) -> ConnectionCounts | None:
        """Return the numbers of connections without a proxy."""
        return self._direct.count_connections()

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


async def _close(transports: _Transports) -> None:
    while transports:
        _, transport = transports.popitem()
        await transport.aclose()


async def mocked_backend() -> HTTPXBackend:
    """Return a transport over a new client of httpx, for the mock that a test has installed.

    It keeps no connections.
    """
    client = httpx.AsyncClient(
        verify=await shared_context(),
        trust_env=False,
        limits=httpx.Limits(max_keepalive_connections=0),
    )
    return HTTPXBackend(_ClientTransport(client))


class _ClientTransport(httpx.AsyncBaseTransport):
    """A client as a transport: some mocks replace a part of clients."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._client.send(request, stream=True)
