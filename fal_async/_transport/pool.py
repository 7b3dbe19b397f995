"""An HTTP/1.1 transport for httpx whose costs do not grow with the number of connections."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import httpx
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from fal_async._transport.connection import Connection, ReplyBody
from fal_async._transport.dialing import dial
from fal_async._transport.encoding import encode
from fal_async._transport.loops import PerLoop
from fal_async._transport.parsing import ReplyParser
from fal_async._transport.places import Origin, Pool
from fal_async._transport.tls import shared_context

if TYPE_CHECKING:
    import ssl

    from fal_async._transport.connection import Timeouts
    from fal_async._transport.encoding import Outgoing

__all__ = ["PooledTransport"]

_PORTS: Final = {"http": 80, "https": 443}


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
        if max_connections is not None and max_connections < 1:
            raise ValueError("max_connections must be at least 1, or None for no bound")
        self._ssl_context = ssl_context
        self._max_header_bytes = max_header_bytes
        self._closed = False
        self._pools = PerLoop(
            partial(Pool, max_connections=max_connections, keepalive_expiry=keepalive_expiry),
            close=Pool.drop_all,
        )

    async def prepare(self) -> None:
        """Load the trusted certificates, which the first ``https`` request would do otherwise."""
        if self._ssl_context is None:
            await shared_context()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of its reply.

        The bounds are those of the request's ``timeout`` extension.

        Raises:
            httpx.ConnectError: No connection could be made: nothing was sent.
            httpx.TransportError: The exchange failed otherwise.
            RuntimeError: The transport is closed.
        """
        if self._closed:
            raise RuntimeError("the transport is closed")
        outgoing = encode(request)
        timeouts: Timeouts = request.extensions.get("timeout") or {}
        await checkpoint_if_cancelled()
        pool = self._pools.get()
        origin = _origin(request.url)
        connect = partial(self._dial, timeouts.get("connect"))
        while True:
            connection = await pool.acquire(origin, connect, timeouts.get("pool"))
            reply = ReplyParser(
                bodiless=not outgoing.expects_body, max_header_bytes=self._max_header_bytes
            )
            try:
                await connection.exchange(outgoing, reply, timeouts)
            except BaseException as error:
                pool.release(connection, reusable=False)
                if not _was_dead(connection, outgoing, reply, error):
                    raise
            else:
                return _respond(pool, connection, reply, timeouts.get("read"))

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those in use when they come free."""
        self._closed = True
        pool = self._pools.pop()
        if pool is not None:
            pool.close_idle()
        await checkpoint()

    async def _dial(self, timeout: float | None, origin: Origin) -> Connection:
        with anyio.move_on_after(timeout):
            tls = None
            if origin.scheme == "https":
                tls = self._ssl_context or await shared_context()
            return Connection(origin, await dial(origin.host, origin.port, tls=tls))
        raise httpx.ConnectTimeout(
            f"no connection to {origin.host}:{origin.port} within {timeout} s"
        )


def _origin(url: httpx.URL) -> Origin:
    try:
        port = url.port or _PORTS[url.scheme]
    except KeyError:
        raise httpx.UnsupportedProtocol(f"{url.scheme!r} is not http or https") from None
    if not url.host:
        raise httpx.UnsupportedProtocol("the URL has no host")
    return Origin(url.scheme, url.raw_host.decode("ascii"), port)


def _was_dead(
    connection: Connection, request: Outgoing, reply: ReplyParser, error: BaseException
) -> bool:
    """Whether a connection was dead before the request, which can go over another one."""
    return (
        isinstance(error, httpx.ReadError | httpx.WriteError)
        and connection.served > 1
        and request.repeatable
        and not reply.started
    )


def _respond(
    pool: Pool, connection: Connection, reply: ReplyParser, timeout: float | None
) -> httpx.Response:
    stream: httpx.AsyncByteStream
    release = partial(pool.release, connection)
    if reply.complete:
        release(reusable=reply.reusable)
        stream = httpx.ByteStream(reply.take())
    else:
        stream = ReplyBody(connection, reply, timeout, release)
    return httpx.Response(
        reply.status,
        headers=reply.headers,
        stream=stream,
        extensions={
            "http_version": f"HTTP/{reply.http_version}".encode(),
            "reason_phrase": reply.reason,
        },
    )
