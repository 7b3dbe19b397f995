"""`PooledTransport`: the connection pool as a transport of httpx."""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

import httpx

from fal_async._core.annotations import set_module
from fal_async._core.checks import check_instance, check_number, whole_number
from fal_async._http.encoder import encode_headers, encode_request
from fal_async._http.network_stream import NetworkStream
from fal_async._http.pool import HTTPConnectionPool
from fal_async._http.transmission import Tracer, Transmission
from fal_async._http.urls import origin_from_httpx
from fal_async._net.errors import ExchangeError, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from fal_async._http.connection import ResponseBody, Timeouts
    from fal_async._http.encoder import EncodedRequest
    from fal_async._http.transmission import TraceFunction

__all__ = ["PooledTransport", "encode_httpx_request"]

#: Methods whose requests can be repeated when a connection turns out to be dead (RFC 9110, section
#: 9.2.2). An `httpx.Request` contains no other information about its effect.
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

_is_target = re.compile(rb"[!-~]+").fullmatch


@set_module("fal_async")
class PooledTransport(httpx.AsyncBaseTransport):
    """A transport for httpx over persistent HTTP/1.1 connections.

    Acquiring and releasing a connection costs the same with one request in flight as with
    thousands. One transport may serve several event loops, one after another or in several threads:
    each has its own connections, which are closed when the loop ends. The constructor does no I/O
    and needs no event loop.

    Args:
        max_connections: Maximum number of connections to one origin at once; requests beyond it
            wait in the order of their arrival. ``None`` sets no limit.
        keepalive_expiry: Maximum time that an idle connection is kept, in seconds.
        ssl_context: The TLS context. ``None`` uses one that trusts the same certificates as httpx,
            and that all transports of the process share. If your own context sets
            ``ssl.OP_IGNORE_UNEXPECTED_EOF``, a truncated response that ends with its connection is
            not detected.
        max_header_bytes: Maximum length of the head of a response, in bytes.

    Example:
        >>> import httpx
        >>> client = httpx.AsyncClient(transport=fal_async.PooledTransport())
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
        self._pool: HTTPConnectionPool = HTTPConnectionPool(
            max_connections=max_connections,
            keepalive_expiry=keepalive_expiry,
            ssl_context=ssl_context,
            max_header_bytes=max_header_bytes,
        )

    async def prepare(self) -> None:
        """Load the trusted certificates, as the first ``https`` request would do otherwise.

        Raises:
            httpx.ConnectError: The certificates cannot be read.
        """
        with _map_to_httpx_errors():
            await self._pool.prepare()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of its response.

        The extensions of httpx are supported: ``timeout``, ``trace``, ``sni_hostname`` and
        ``target`` of requests; ``http_version``, ``reason_phrase`` and ``network_stream`` of
        responses. The ``network_stream`` gives access to a connection that the server has
        upgraded. Events of ``trace`` have the names of httpx's own transport, and show the request
        as an `httpx.Request`.

        Raises:
            httpx.ConnectError: No connection could be made. Nothing was sent.
            httpx.TransportError: There is no response for another reason.
            RuntimeError: The transport is closed.
        """
        timeouts: Timeouts = request.extensions.get("timeout") or {}
        with _map_to_httpx_errors():
            encoded = encode_httpx_request(request)
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
            received = await self._pool.request(origin, encoded, timeouts, transmission)
        response, body, connection = received
        stream = httpx.ByteStream(response.read_body()) if body is None else _BodyStream(body)
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=stream if tracer is None else _TracingStream(stream, tracer),
            extensions={
                "http_version": f"HTTP/{response.http_version}".encode(),
                "reason_phrase": response.reason,
                "network_stream": NetworkStream(
                    connection, is_upgraded=response.is_upgraded, received=response.trailing
                ),
            },
        )

    async def aclose(self) -> None:
        """Close the connections of the running event loop, those in use after their response."""
        await self._pool.aclose()


def encode_httpx_request(request: httpx.Request) -> EncodedRequest:
    """Validate a request of httpx and encode its head.

    Raises:
        LocalProtocolError: The request is not valid HTTP, or is ambiguous.
    """
    stream = request.stream
    if isinstance(stream, httpx.ByteStream):
        body: bytes | AsyncIterator[bytes] = b"".join(stream)
    elif isinstance(stream, httpx.AsyncByteStream):
        body = aiter(stream)
    else:
        raise LocalProtocolError("the body must be an asynchronous stream, got a synchronous one")
    target: bytes = request.extensions.get("target", request.url.raw_path)
    if not _is_target(target):
        raise LocalProtocolError(
            f"the target must be visible ASCII characters without spaces, got {target!r}"
        )
    headers = encode_headers(request.url.netloc, request.headers.raw)
    return encode_request(request.method, target, headers, body)


class _BodyStream(httpx.AsyncByteStream):
    """The body of a response, with the errors of httpx."""

    def __init__(self, body: ResponseBody) -> None:
        self._body = body

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with _map_to_httpx_errors():
            return await anext(self._body)

    async def aclose(self) -> None:
        await self._body.aclose()


class _TracingStream(httpx.AsyncByteStream):
    """The body of a response, with trace events."""

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
    """Raise the errors of httpx that have the same names."""
    try:
        yield
    except ExchangeError as error:
        kind: type[httpx.TransportError] = getattr(httpx, type(error).__name__)
        raise kind(str(error)) from error.__cause__
