"""An HTTP/1.1 transport for httpx whose costs do not grow with the number of connections."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import httpx

from fal_async._checks import check_instance, check_number, whole_number
from fal_async._transport.encoding import compose
from fal_async._transport.engine import Engine
from fal_async._transport.errors import ExchangeError, LocalProtocolError
from fal_async._transport.network_stream import NetworkStream
from fal_async._transport.targets import origin_of
from fal_async._transport.tracing import Tracer
from fal_async._transport.transmission import Transmission

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from fal_async._transport.connection import ReplyBody, Timeouts
    from fal_async._transport.encoding import Outgoing
    from fal_async._transport.engine import Incoming
    from fal_async._transport.tracing import TraceFunction

__all__ = ["PooledTransport", "encode"]


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
            own, a reply that ends with its connection can be cut short unnoticed.
        max_header_bytes: How long the head of a reply may be, in bytes.

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
        self.engine: Engine = Engine(
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
        with _as_httpx_says():
            await self.engine.prepare()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of its reply.

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
        with _as_httpx_says():
            outgoing = encode(request)
            origin = origin_of(request.url)
            if name := request.extensions.get("sni_hostname"):
                origin = origin._replace(server_hostname=name)
            trace: TraceFunction | None = request.extensions.get("trace")
            tracer = None if trace is None else Tracer(trace, request)
            transmission = Transmission(
                repeatable=request.method in IDEMPOTENT,
                may_upgrade="upgrade" in request.headers,
                tracer=tracer,
            )
            incoming = await self.engine.exchange(origin, outgoing, timeouts, transmission)
        return _response_of(incoming, tracer)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those in use when they come free."""
        await self.engine.aclose()


def encode(request: httpx.Request) -> Outgoing:
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
    return compose(request.method, request.url.netloc, target, request.headers.raw, body)


def _response_of(incoming: Incoming, tracer: Tracer | None) -> httpx.Response:
    """A reply as httpx has it."""
    reply, rest, connection = incoming
    stream = httpx.ByteStream(reply.take()) if rest is None else _Stream(rest)
    return httpx.Response(
        reply.status,
        headers=reply.headers,
        stream=stream if tracer is None else _TracedStream(stream, tracer),
        extensions={
            "http_version": f"HTTP/{reply.http_version}".encode(),
            "reason_phrase": reply.reason,
            "network_stream": NetworkStream(
                connection, is_upgraded=reply.is_upgraded, received=reply.trailing
            ),
        },
    )


class _Stream(httpx.AsyncByteStream):
    """The body of a reply as httpx has it."""

    def __init__(self, body: ReplyBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _as_httpx_says():
            return await anext(self._body)

    async def aclose(self) -> None:
        await self._body.aclose()


class _TracedStream(httpx.AsyncByteStream):
    """The body of a reply whose steps are traced."""

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
def _as_httpx_says() -> Generator[None]:
    """Raise the errors of httpx that are called the same."""
    try:
        yield
    except ExchangeError as error:
        kind: type[httpx.TransportError] = getattr(httpx, type(error).__name__)
        raise kind(str(error)) from error.__cause__
