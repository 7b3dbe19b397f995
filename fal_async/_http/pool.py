"""The connection pool: LIFO of idle connections, FIFO of waiters."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from fal_async._http.connection import HTTPConnection, ResponseBody
from fal_async._http.extensions import NetworkStream
from fal_async._http.parser import ResponseParser
from fal_async._net.connect import connect, secure, shared_context
from fal_async._net.errors import ConnectTimeout, PoolTimeout, ReadError, WriteError
from fal_async._net.event_loops import PerLoop

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from fal_async._http.connection import Timeouts
    from fal_async._http.encoder import EncodedRequest
    from fal_async._http.transmission import Tracer, Transmission
    from fal_async._http.urls import Origin

__all__ = ["Engine", "HTTPConnectionPool", "ReceivedHead"]


Dial: TypeAlias = "Callable[[Origin], Awaitable[HTTPConnection]]"


class _Waiter:
    """Someone who waits for a place; it comes with a connection, or with the right to open one."""

    __slots__ = ("connection", "granted", "ready")

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.granted = False
        self.connection: HTTPConnection | None = None


class _OriginState:
    """The connections of one origin: those in use are counted, those at rest are stacked."""

    __slots__ = ("idle", "in_use", "waiters")

    def __init__(self) -> None:
        self.in_use = 0
        self.idle: deque[HTTPConnection] = deque()
        self.waiters: OrderedDict[_Waiter, None] = OrderedDict()


class HTTPConnectionPool:
    """The connections of one event loop.

    A place is the right to have one connection to an origin in use. While someone waits for one, no
    connection of that origin rests: what is given back goes to who has waited longest.

    Args:
        max_connections: How many places each origin has; ``None`` for no bound.
        keepalive_expiry: How long a connection may be idle, in seconds.
    """

    def __init__(self, *, max_connections: int | None, keepalive_expiry: float) -> None:
        self._max_connections = math.inf if max_connections is None else max_connections
        self._keepalive_expiry = keepalive_expiry
        self._berths: dict[Origin, _OriginState] = {}
        self._open: set[HTTPConnection] = set()
        self._next_sweep = -math.inf
        self._closed = False

    async def acquire(
        self, origin: Origin, dial: Dial, timeout: float | None, transmission: Transmission
    ) -> HTTPConnection:
        """Take the connection that was used last, or open one; each is to be released once.

        A request that may not be repeated gets an idle connection only where nothing suggests that
        the peer is about to close it.

        Args:
            origin: Where to.
            dial: Opens a connection.
            timeout: How long to wait for a place, in seconds; ``None`` for as long as it takes.
            transmission: What is to be sent.

        Raises:
            PoolTimeout: No place came free in time.
        """
        berth = self._berths.get(origin)
        if berth is None:
            berth = self._berths[origin] = _OriginState()
        careful = not transmission.repeatable
        connection = self._pop_idle(berth, careful=careful)
        if connection is None and berth.in_use >= self._max_connections:
            transmission.waiting_for = f"max_connections ({self._max_connections})"
            connection = await self._wait(origin, timeout, careful=careful)
            transmission.waiting_for = ""
        else:
            berth.in_use += 1
            if connection is None and berth.in_use + len(berth.idle) > self._max_connections:
                self._close(berth.idle.popleft())
        return connection or await self._connect(origin, dial)

    def release(self, connection: HTTPConnection, *, reusable: bool) -> None:
        """Give back a connection with its place; one that cannot be used again is closed."""
        if reusable and connection.reusable and not self._closed:
            connection.rest(monotonic(), self._keepalive_expiry)
            self._hand_off(connection.origin, connection)
        else:
            self._close(connection)
            self._hand_off(connection.origin, None)

    def close_idle(self) -> None:
        """Close what is not in use; what is in use is closed when it is given back."""
        self._closed = True
        for berth in self._berths.values():
            while berth.idle:
                self._close(berth.idle.pop())
            for waiter in berth.waiters:
                waiter.ready.set()

    def close_all_without_loop(self) -> None:
        """Close everything at once; needs no event loop."""
        self._closed = True
        while self._open:
            self._open.pop().drop()

    def _pop_idle(self, berth: _OriginState, *, careful: bool) -> HTTPConnection | None:
        now = monotonic()
        while berth.idle:
            connection = berth.idle[-1]
            is_open = connection.expires > now and connection.is_quiet()
            if is_open and careful and connection.reliable_until <= now:
                return None  # and nor is any other reliable: those below it are older, or worse
            berth.idle.pop()
            if is_open:
                return connection
            self._close(connection)
        return None

    async def _wait(
        self, origin: Origin, timeout: float | None, *, careful: bool
    ) -> HTTPConnection | None:
        """Wait for a place; it may come with a connection."""
        berth = self._berths[origin]
        waiter = _Waiter()
        berth.waiters[waiter] = None
        try:
            with anyio.move_on_after(timeout):
                await waiter.ready.wait()
            await checkpoint()  # who was cancelled while waking up must not send anything
            self._check_granted(waiter, timeout)
        except BaseException:
            berth.waiters.pop(waiter, None)
            if waiter.granted:
                self._hand_off(origin, waiter.connection)
            raise
        connection = waiter.connection
        if connection is not None and not (
            connection.is_quiet() and (connection.reliable_until > monotonic() or not careful)
        ):
            self._close(connection)
            return None
        return connection

    def _check_granted(self, waiter: _Waiter, timeout: float | None) -> None:
        if self._closed:
            raise RuntimeError("the transport was closed")
        if not waiter.granted:
            raise PoolTimeout(f"no connection came free for {timeout} s")

    async def _connect(self, origin: Origin, dial: Dial) -> HTTPConnection:
        """Open a connection for a place that has been taken."""
        self._close_expired()
        try:
            connection = await dial(origin)
        except BaseException:
            self._hand_off(origin, None)
            raise
        self._open.add(connection)
        try:
            await checkpoint()  # who was cancelled in the meantime must not send anything
        except BaseException:
            self.release(connection, reusable=False)
            raise
        return connection

    def _hand_off(self, origin: Origin, connection: HTTPConnection | None) -> None:
        """Hand a place to who has waited longest, or let it go."""
        berth = self._berths[origin]
        if berth.waiters:
            waiter, _ = berth.waiters.popitem(last=False)
            waiter.connection = connection
            waiter.granted = True
            waiter.ready.set()
            return
        berth.in_use -= 1
        if connection is not None:
            if connection.reliable_until == -math.inf:
                berth.idle.appendleft(connection)  # the reliable ones are on top
            else:
                berth.idle.append(connection)
        elif not berth.in_use and not berth.idle:
            del self._berths[origin]

    def _close(self, connection: HTTPConnection) -> None:
        self._open.discard(connection)
        connection.close()

    def _close_expired(self) -> None:
        """Now and then, close what rests for too long at origins that nobody asks for any more."""
        now = monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + self._keepalive_expiry
        for origin, berth in list(self._berths.items()):
            for connection in berth.idle:
                if connection.expires <= now:
                    self._close(connection)
            berth.idle = deque(each for each in berth.idle if each.expires > now)
            if not (berth.in_use or berth.idle):
                del self._berths[origin]


class ReceivedHead(NamedTuple):
    """A response whose head has arrived.

    Attributes:
        response: The head, with as much of the body as came along.
        rest: The rest of the body, to be read or closed; ``None`` when all of it is there. After an
            upgrade it is empty, and closes the connection.
        connection: What it came over.
    """

    response: ResponseParser
    rest: ResponseBody | None
    connection: HTTPConnection


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
            partial(
                HTTPConnectionPool,
                max_connections=max_connections,
                keepalive_expiry=keepalive_expiry,
            ),
            close=HTTPConnectionPool.close_all_without_loop,
        )

    async def prepare(self) -> None:
        """Load the trusted certificates, which the first ``https`` request would do otherwise."""
        if self._ssl_context is None:
            await shared_context()

    async def request(
        self,
        origin: Origin,
        outgoing: EncodedRequest,
        timeouts: Timeouts,
        transmission: Transmission,
    ) -> ReceivedHead:
        """Send a request and wait for the head of its response.

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
            response = ResponseParser(
                no_body=not outgoing.expects_body,
                max_header_bytes=self._max_header_bytes,
                may_upgrade=transmission.may_upgrade,
            )
            try:
                await connection.exchange(outgoing, response, timeouts, transmission)
            except BaseException as error:
                pool.release(connection, reusable=False)
                if not (
                    _is_retryable(connection, response, error)
                    and _may_repeat(outgoing, transmission)
                ):
                    raise
            else:
                return _incoming(pool, connection, response, timeouts.get("read"))

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those in use when they come free."""
        self._closed = True
        pool = self._pools.pop()
        if pool is not None:
            pool.close_idle()
        await checkpoint()

    async def _dial(
        self, timeout: float | None, tracer: Tracer | None, origin: Origin
    ) -> HTTPConnection:
        with anyio.move_on_after(timeout):
            tls = None
            if origin.scheme == "https":
                tls = self._ssl_context or await shared_context()
            if tracer is not None:
                return await _dial_traced(tracer, origin, tls, timeout)
            stream = await connect(origin.host, origin.port)
            if tls is not None:
                stream = await secure(stream, origin.server_hostname or origin.host, tls)
            return HTTPConnection(origin, stream)
        raise ConnectTimeout(f"no connection to {origin.host}:{origin.port} within {timeout} s")


async def _dial_traced(
    tracer: Tracer, origin: Origin, tls: ssl.SSLContext | None, timeout: float | None
) -> HTTPConnection:
    place = {"host": origin.host, "port": origin.port, "timeout": timeout}
    async with tracer.step("connection.connect_tcp", place) as step:
        stream = await connect(origin.host, origin.port)
        connection = HTTPConnection(origin, stream)
        step.return_value = NetworkStream(connection, is_upgraded=False, received=b"")
    if tls is None:
        return connection
    name = origin.server_hostname or origin.host
    facts = {"ssl_context": tls, "server_hostname": name, "timeout": timeout}
    async with tracer.step("connection.start_tls", facts) as step:
        connection = HTTPConnection(origin, await secure(stream, name, tls))
        step.return_value = NetworkStream(connection, is_upgraded=False, received=b"")
    return connection


def _is_retryable(
    connection: HTTPConnection, response: ResponseParser, error: BaseException
) -> bool:
    """Return whether a reused connection broke before a response, as a dead one does."""
    return (
        isinstance(error, ReadError | WriteError)
        and connection.request_count > 1
        and not response.started
    )


def _may_repeat(request: EncodedRequest, transmission: Transmission) -> bool:
    if not transmission.sent:
        return True  # the body was not touched either
    return transmission.repeatable and isinstance(request.body, bytes)


def _incoming(
    pool: HTTPConnectionPool,
    connection: HTTPConnection,
    response: ResponseParser,
    timeout: float | None,
) -> ReceivedHead:
    if response.complete and not response.is_upgraded:
        pool.release(connection, reusable=response.reusable)
        return ReceivedHead(response, None, connection)
    rest = ResponseBody(connection, response, timeout, partial(pool.release, connection))
    return ReceivedHead(response, rest, connection)
