"""HTTP/1.1 exchanges over connections that are kept alive, however many those are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from fal_async._transport.connection import Connection, ReplyBody
from fal_async._transport.dialing import dial, secure
from fal_async._transport.errors import ConnectTimeout, ReadError, WriteError
from fal_async._transport.loops import PerLoop
from fal_async._transport.network_stream import NetworkStream
from fal_async._transport.parsing import ReplyParser
from fal_async._transport.places import Pool
from fal_async._transport.tls import shared_context

if TYPE_CHECKING:
    import ssl

    from fal_async._transport.connection import Timeouts
    from fal_async._transport.encoding import Outgoing
    from fal_async._transport.places import Origin
    from fal_async._transport.tracing import Tracer
    from fal_async._transport.transmission import Transmission

__all__ = ["Engine", "Incoming"]


class Incoming(NamedTuple):
    """A reply whose head has arrived.

    Attributes:
        reply: The head, with as much of the body as came along.
        rest: The rest of the body, to be read or closed; ``None`` when all of it is there. After an
            upgrade it is empty, and closes the connection.
        connection: What it came over.
    """

    reply: ReplyParser
    rest: ReplyBody | None
    connection: Connection


class Engine:
    """What `PooledTransport` does, without the objects of httpx, which cost as much again.

    Args:
        max_connections: As for `PooledTransport`, and so are the others.
        keepalive_expiry: Seconds.
        ssl_context: ``None`` for the shared one.
        max_header_bytes: Bytes.
    """

    def __init__(
        self,
        *,
        max_connections: int | None = None,
        keepalive_expiry: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
        max_header_bytes: int = 64 * 1024,
    ) -> None:
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

    async def exchange(
        self,
        origin: Origin,
        outgoing: Outgoing,
        timeouts: Timeouts,
        transmission: Transmission,
    ) -> Incoming:
        """Send a request and wait for the head of its reply.

        A kept connection may turn out to be dead. The request goes over another one then, if none
        of it was written, or if it may be repeated.

        Args:
            origin: What to connect to.
            outgoing: The request.
            timeouts: The bounds of connecting, writing, reading and waiting for a connection.
            transmission: Says whether the request may be repeated, and learns what was sent.

        Raises:
            ExchangeError: The exchange failed.
            RuntimeError: The engine is closed.
        """
        if self._closed:
            raise RuntimeError("the transport is closed")
        await checkpoint_if_cancelled()
        pool = self._pools.get()
        connect = partial(self._dial, timeouts.get("connect"), transmission.tracer)
        while True:
            connection = await pool.acquire(origin, connect, timeouts.get("pool"), transmission)
            reply = ReplyParser(
                bodiless=not outgoing.expects_body,
                max_header_bytes=self._max_header_bytes,
                may_upgrade=transmission.may_upgrade,
            )
            try:
                await connection.exchange(outgoing, reply, timeouts, transmission)
            except BaseException as error:
                pool.release(connection, reusable=False)
                if not (
                    _was_dead(connection, reply, error) and _may_repeat(outgoing, transmission)
                ):
                    raise
            else:
                return _incoming(pool, connection, reply, timeouts.get("read"))

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those in use when they come free."""
        self._closed = True
        pool = self._pools.pop()
        if pool is not None:
            pool.close_idle()
        await checkpoint()

    async def _dial(
        self, timeout: float | None, tracer: Tracer | None, origin: Origin
    ) -> Connection:
        with anyio.move_on_after(timeout):
            tls = None
            if origin.scheme == "https":
                tls = self._ssl_context or await shared_context()
            if tracer is not None:
                return await _dial_traced(tracer, origin, tls, timeout)
            stream = await dial(origin.host, origin.port)
            if tls is not None:
                stream = await secure(stream, origin.server_hostname or origin.host, tls)
            return Connection(origin, stream)
        raise ConnectTimeout(f"no connection to {origin.host}:{origin.port} within {timeout} s")


async def _dial_traced(
    tracer: Tracer, origin: Origin, tls: ssl.SSLContext | None, timeout: float | None
) -> Connection:
    place = {"host": origin.host, "port": origin.port, "timeout": timeout}
    async with tracer.step("connection.connect_tcp", place) as step:
        stream = await dial(origin.host, origin.port)
        connection = Connection(origin, stream)
        step.return_value = NetworkStream(connection, is_upgraded=False, received=b"")
    if tls is None:
        return connection
    name = origin.server_hostname or origin.host
    facts = {"ssl_context": tls, "server_hostname": name, "timeout": timeout}
    async with tracer.step("connection.start_tls", facts) as step:
        connection = Connection(origin, await secure(stream, name, tls))
        step.return_value = NetworkStream(connection, is_upgraded=False, received=b"")
    return connection


def _was_dead(connection: Connection, reply: ReplyParser, error: BaseException) -> bool:
    """Whether a kept connection broke without a byte of a reply: it may have been dead before."""
    return isinstance(error, ReadError | WriteError) and connection.served > 1 and not reply.started


def _may_repeat(request: Outgoing, transmission: Transmission) -> bool:
    if not transmission.sent:
        return True  # the body was not touched either
    return transmission.repeatable and isinstance(request.body, bytes)


def _incoming(
    pool: Pool, connection: Connection, reply: ReplyParser, timeout: float | None
) -> Incoming:
    if reply.complete and not reply.is_upgraded:
        pool.release(connection, reusable=reply.reusable)
        return Incoming(reply, None, connection)
    rest = ReplyBody(connection, reply, timeout, partial(pool.release, connection))
    return Incoming(reply, rest, connection)
