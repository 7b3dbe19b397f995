"""`PooledTransport` for httpx; adapter for httpx transports."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from fal_async._core.checks import check_instance, check_number, whole_number
from fal_async._core.secrets import Secret
from fal_async._http.decoding import DecodedBody
from fal_async._http.encoder import encode_request
from fal_async._http.extensions import NetworkStream
from fal_async._http.pool import Engine
from fal_async._http.response import StreamedResponse, decode_headers
from fal_async._http.transmission import Tracer, Transmission
from fal_async._http.urls import origin_from_httpx
from fal_async._net.errors import (
    ConnectError,
    ConnectTimeout,
    ExchangeError,
    InvalidURL,
    LocalProtocolError,
    PoolTimeout,
    ProxyError,
    UnsupportedProtocol,
    from_httpx_error,
)
from fal_async._protocol.origins import with_query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Mapping

    from fal_async._http.connection import ResponseBody, Timeouts
    from fal_async._http.encoder import EncodedRequest
    from fal_async._http.pool import ReceivedHead
    from fal_async._http.response import Body
    from fal_async._http.transmission import TraceFunction

__all__ = ["HTTPXBackend", "PooledTransport", "encode_httpx_request"]


#: Errors by which a transport says that nothing was sent.
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
    """Carries exchanges over a transport that is not ours.

    Args:
        transport: The transport.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

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
        extensions: dict[str, Any] = {"timeout": timeouts}
        if type(self._transport) is httpx.AsyncHTTPTransport:  # it tells, and the rest may not
            extensions["trace"] = partial(_note_sending, transmission)
        try:
            carried = self._transport.handle_async_request(
                _make_request(method, url, headers, body, extensions, query)
            )
            if "trace" not in extensions:
                transmission.sent = True
            return _to_streamed_response(await carried)
        except httpx.InvalidURL as error:
            raise InvalidURL(str(error)) from error
        except httpx.RequestError as error:
            kind = from_httpx_error(error)
            if issubclass(kind, _UNSENT):
                transmission.sent = False
            raise kind(str(error)) from error

    async def prepare(self) -> None:
        """A transport that is not ours prepares itself."""

    async def aclose(self) -> None:
        """Close the transport."""
        await self._transport.aclose()


async def _note_sending(transmission: Transmission, event: str, info: Mapping[str, Any]) -> None:
    """Learn from httpx's transport that it begins to send; a tunnel is asked for by CONNECT."""
    if event == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
        transmission.sent = True


def _make_request(
    method: str,
    url: str,
    headers: Mapping[str, str | Secret],
    body: Body,
    extensions: dict[str, Any],
    query: Secret | None,
) -> httpx.Request:
    """The request as httpx has it, which shows its URL to whoever looks at a variable."""
    return httpx.Request(
        method,
        _parse_url(url if query is None else with_query(url, query)),
        headers={
            name.encode(): (value.reveal() if isinstance(value, Secret) else value).encode(
                "latin-1"
            )
            for name, value in headers.items()
        },
        content=body,
        extensions=extensions,
    )


def _to_streamed_response(response: httpx.Response) -> StreamedResponse:
    headers, raw = decode_headers(response.headers.raw), _Body(response)
    encoding = headers.get("content-encoding")
    body = raw if encoding is None or raw.is_decoded else DecodedBody(raw, encoding)
    return StreamedResponse(response.status_code, headers, rest=body, close=raw.aclose)


class _Body:
    """The body of a response of httpx as it was sent.

    Attributes:
        is_decoded: Whether the transport has read and decompressed it already.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
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
        try:
            return await anext(self._chunks)
        except httpx.RequestError as error:
            raise from_httpx_error(error)(str(error)) from error

    async def aclose(self) -> None:
        chunks = self._chunks
        try:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        finally:
            await self._response.aclose()


#: Methods whose requests may be repeated when a connection turns out to be dead (RFC 9110, section
#: 9.2.2). What httpx hands over says no more than that about what it does.
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class PooledTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over connections that are kept alive; works wherever httpx takes a transport.

    Taking and giving back a connection costs the same with one request in flight as with thousands.
    One transport may serve several event loops, one after another or in several threads: each has
    its own connections, which are closed when the loop ends. The constructor does no I/O and needs
    no event loop.

    Args:
        max_connections: How many connections there may be to one origin at once; requests beyond
            that wait for their turn. ``None`` for no bound.
        keepalive_expiry: How long an idle connection may be used again, in seconds.
        ssl_context: The TLS context; ``None`` for one that trusts what httpx trusts, and that all
            transports of the process share. With ``ssl.OP_IGNORE_UNEXPECTED_EOF`` in one of your
            own, a response that ends with its connection can be cut short unnoticed.
        max_header_bytes: How long the head of a response may be, in bytes.

    Attributes:
        engine: What does the work; for the client, which has no use for the objects of httpx.

    Example:
        >>> client = httpx.AsyncClient(transport=PooledTransport())
    """

    def __init__(
        self,
        *,
        max_connections: int | None = None,
        keepalive_expiry: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
        max_header_bytes: int = 64 * 1024,
    ) -> None:
        if max_connections is not None:
            whole_number("max_connections", max_connections)
        check_number("keepalive_expiry", keepalive_expiry, zero=True)
        whole_number("max_header_bytes", max_header_bytes)
        if ssl_context is not None:
            check_instance("ssl_context", ssl_context, ssl.SSLContext)
        self._pool: Engine = Engine(
            max_connections=max_connections,
            keepalive_expiry=keepalive_expiry,
            ssl_context=ssl_context,
            max_header_bytes=max_header_bytes,
        )

    async def prepare(self) -> None:
        """Load the trusted certificates, which the first ``https`` request would do otherwise.

        Raises:
            httpx.ConnectError: They cannot be read.
        """
        with _map_to_httpx_errors():
            await self._pool.prepare()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of its response.

        The extensions of httpx are supported: ``timeout``, ``trace``, ``sni_hostname`` and
        ``target`` of requests; ``http_version``, ``reason_phrase`` and ``network_stream`` of
        responses, by which a connection can be used that the server has upgraded. Events of
        ``trace`` are named as by httpx's own transport, and show the request as an `httpx.Request`.

        Raises:
            httpx.ConnectError: No connection could be made: nothing was sent.
            httpx.TransportError: The exchange failed otherwise.
            RuntimeError: The transport is closed.
        """
        timeouts: Timeouts = request.extensions.get("timeout") or {}
        with _map_to_httpx_errors():
            outgoing = encode_httpx_request(request)
            origin = origin_from_httpx(request.url)
            if name := request.extensions.get("sni_hostname"):
                origin = origin._replace(server_hostname=name)
            trace: TraceFunction | None = request.extensions.get("trace")
            tracer = None if trace is None else Tracer(trace, request)
            transmission = Transmission(
                repeatable=request.method in IDEMPOTENT,
                may_upgrade="upgrade" in request.headers,
                tracer=tracer,
            )
            incoming = await self._pool.request(origin, outgoing, timeouts, transmission)
        return _response_of(incoming, tracer)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those in use when they come free."""
        await self._pool.aclose()


def encode_httpx_request(request: httpx.Request) -> EncodedRequest:
    """Check a request of httpx and write its head.

    Raises:
        LocalProtocolError: The request cannot be written, or could be read as another one.
    """
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        body: bytes | AsyncIterator[bytes] = b"".join(stream)
    elif isinstance(stream, httpx.AsyncByteStream):
        body = aiter(stream)
    else:
        raise LocalProtocolError("the body is a synchronous stream; it must be asynchronous")
    target: bytes = request.extensions.get("target", request.url.raw_path)
    return encode_request(request.method, request.url.netloc, target, request.headers.raw, body)


def _response_of(incoming: ReceivedHead, tracer: Tracer | None) -> httpx.Response:
    """A response as httpx has it."""
    response, rest, connection = incoming
    stream = httpx.ByteStream(response.read_body()) if rest is None else _Stream(rest)
    return httpx.Response(
        response.status,
        headers=response.headers,
        stream=stream if tracer is None else _TracedStream(stream, tracer),
        extensions={
            "http_version": f"HTTP/{response.http_version}".encode(),
            "reason_phrase": response.reason,
            "network_stream": NetworkStream(
                connection, is_upgraded=response.is_upgraded, received=response.trailing
            ),
        },
    )


class _Stream(httpx.AsyncByteStream):
    """The body of a response as httpx has it."""

    def __init__(self, body: ResponseBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _map_to_httpx_errors():
            return await anext(self._body)

    async def aclose(self) -> None:
        await self._body.aclose()


class _TracedStream(httpx.AsyncByteStream):
    """The body of a response whose steps are traced."""

    def __init__(self, stream: httpx.AsyncByteStream, tracer: Tracer) -> None:
        self._stream = stream
        self._tracer = tracer

        self._chunks: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        name = "http11.receive_response_body"
        if self._chunks is None:
            await self._tracer.start(name)
            self._chunks = aiter(self._stream)
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            await self._tracer.complete(name)
            raise
        except BaseException as error:
            await self._tracer.fail(name, error)
            raise

    async def aclose(self) -> None:
        async with self._tracer.step("http11.response_closed"):
            await self._stream.aclose()


@contextmanager
def _map_to_httpx_errors() -> Generator[None]:
    """Raise the errors of httpx that are called the same."""
    try:
        yield
    except ExchangeError as error:
        kind: type[httpx.TransportError] = getattr(httpx, type(error).__name__)
        raise kind(str(error)) from error.__cause__
