"""The connection pool: reuse of idle connections, and slots where they are limited."""

from __future__ import annotations

import logging
import math
from collections import deque
from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from fal_async._http.connection import HTTPConnection, ResponseBody
from fal_async._http.network_stream import NetworkStream
from fal_async._http.parser import ResponseParser
from fal_async._http.response import ConnectionCounts
from fal_async._http.transmission import trace
from fal_async._net.connect import connect, secure, shared_context
from fal_async._net.errors import ConnectTimeout, PoolTimeout, ReadError, WriteError
from fal_async._net.event_loops import PerLoop
from fal_async._net.running_loop import cancellation_check

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from fal_async._http.connection import Timeouts
    from fal_async._http.encoder import EncodedRequest
    from fal_async._http.transmission import Tracer, Transmission
    from fal_async._http.urls import Origin

__all__ = ["HTTPConnectionPool", "ReceivedHead"]

_log = logging.getLogger("fal_async")


class ReceivedHead(NamedTuple):
    """A response whose head has arrived.

    Attributes:
        response: The parser, with the head and the part of the body that arrived with it.
        body: The rest of the body, to be read or closed; ``None`` when the response is complete.
            After an upgrade it is empty, and closes the connection.
        connection: The connection that it arrived on.
    """

    response: ResponseParser
    body: ResponseBody | None
    connection: HTTPConnection


class HTTPConnectionPool:
    """Sends requests over persistent connections, separate ones for each event loop.

    It works without the objects of httpx, which cost as much again.

    Args:
        max_connections: Maximum number of connections to one origin; requests beyond it wait in the
            order of their arrival. ``None`` sets no limit.
        keepalive_expiry: Maximum time that an idle connection is kept, in seconds.
        ssl_context: The TLS context; ``None`` for the shared one.
        max_header_bytes: Maximum length of the head of a response, in bytes.
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
        self._connections = PerLoop(
            partial(_Connections, max_connections, keepalive_expiry),
            close=_Connections.close_without_loop,
        )

    async def prepare(self) -> None:
        """Load the trusted certificates, as the first ``https`` request would do otherwise."""
        if self._ssl_context is None:
            await shared_context()

    async def request(
        self,
        origin: Origin,
        request: EncodedRequest,
        timeouts: Timeouts,
        transmission: Transmission,
    ) -> ReceivedHead:
        """Send a request and wait for the head of its response.

        An idle connection may turn out to be dead. In that case the request is sent over another
        one, if none of it was written, or if it can be repeated.

        Args:
            origin: The origin to connect to.
            request: The request.
            timeouts: The timeouts.
            transmission: The state of the attempt, which is updated.

        Raises:
            ExchangeError: There is no response.
            RuntimeError: The pool is closed.
        """
        if self._closed:
            raise RuntimeError("the transport is closed")
        connections = self._connections.get()
        await connections.checkpoint_if_cancelled()
        open_connection = partial(self._open, timeouts.get("connect"), transmission.tracer)
        while True:
            connection = await connections.acquire(
                origin, open_connection, timeouts.get("pool"), transmission
            )
            response = ResponseParser(
                no_body=not request.expects_body,
                max_header_bytes=self._max_header_bytes,
                may_upgrade=transmission.may_upgrade,
            )
            try:
                await connection.request(request, response, timeouts, transmission)
            except BaseException as error:
                connections.release(connection, reusable=False)
                was_dead = (
                    isinstance(error, ReadError | WriteError)
                    and connection.request_count > 1
                    and not response.started
                )
                # If nothing was sent, the body was not read either.
                can_repeat = not transmission.sent or (
                    transmission.repeatable and isinstance(request.body, bytes)
                )
                if not (was_dead and can_repeat):
                    raise
            else:
                break
        if response.complete and not response.is_upgraded:
            connections.release(connection, reusable=response.reusable)
            return ReceivedHead(response, None, connection)
        release = partial(connections.release, connection)
        body = ResponseBody(connection, response, timeouts.get("read"), release)
        return ReceivedHead(response, body, connection)

    async def _open(
        self, timeout: float | None, tracer: Tracer | None, origin: Origin
    ) -> HTTPConnection:
        with anyio.move_on_after(timeout):
            tls = None
            if origin.scheme == "https":
                tls = self._ssl_context or await shared_context()
            info = {"host": origin.host, "port": origin.port, "timeout": timeout}
            began = monotonic()
            async with trace(tracer, "connection.connect_tcp", info) as step:
                connection = HTTPConnection(origin, await connect(origin.host, origin.port))
                step.return_value = NetworkStream(connection)
            if tls is not None:
                name = origin.server_hostname or origin.host
                info = {"ssl_context": tls, "server_hostname": name, "timeout": timeout}
                async with trace(tracer, "connection.start_tls", info) as step:
                    connection = HTTPConnection(origin, await secure(connection.stream, name, tls))
                    step.return_value = NetworkStream(connection)
            elapsed = monotonic() - began
            fields = {"fal_host": origin.host, "fal_port": origin.port, "fal_seconds": elapsed}
            _log.debug(
                "Connected to %s:%d in %.3f s", origin.host, origin.port, elapsed, extra=fields
            )
            return connection
        raise ConnectTimeout(f"cannot connect to {origin.host}:{origin.port} within {timeout} s")

    def count_connections(self) -> ConnectionCounts:
        """Return the numbers of connections of the running event loop."""
        return self._connections.get().count()

    async def aclose(self) -> None:
        """Close the connections of the running event loop, those in use after their response."""
        self._closed = True
        connections = self._connections.pop()
        if connections is not None:
            connections.close_idle()
        await checkpoint()


OpenConnection: TypeAlias = "Callable[[Origin], Awaitable[HTTPConnection]]"


class _Connections:
    """The connections of one event loop.

    The idle connections of an origin form a stack. The connection used last is reused first, and
    the others expire.
    """

    def __init__(self, max_connections: int | None, keepalive_expiry: float) -> None:
        self._max_connections = max_connections
        self._keepalive_expiry = keepalive_expiry
        self._origins: dict[Origin, _OriginState] = {}
        self._open: set[HTTPConnection] = set()
        self._next_expiry_check = -math.inf
        self._closed = False

    @cached_property
    def checkpoint_if_cancelled(self) -> Callable[[], Awaitable[None]]:
        """The function of anyio, for this event loop."""
        return cancellation_check()

    async def acquire(
        self,
        origin: Origin,
        open_connection: OpenConnection,
        timeout: float | None,
        transmission: Transmission,
    ) -> HTTPConnection:
        """Return an idle connection, or open one; the caller must release it.

        A request that cannot be repeated gets an idle connection only if the peer is unlikely to
        close it.

        Args:
            origin: The origin.
            open_connection: Opens a connection.
            timeout: Maximum time to wait for a slot, in seconds; ``None`` disables the timeout.
            transmission: The request to send.

        Raises:
            PoolTimeout: No slot became free in time.
        """
        state = self._origins.get(origin)
        if state is None:
            state = self._origins[origin] = _OriginState(self._max_connections)
        state.requests += 1
        if state.slots is not None:
            try:
                await self._acquire_slot(state.slots, timeout, transmission)
            except BaseException:
                self._forget_request(origin)
                raise
        connection = self._pop_idle(state, reliable=not transmission.repeatable)
        if connection is not None:
            return connection
        if state.slots is not None and len(state.idle) > state.slots.value:
            self._close(state.idle.popleft())
        self._close_expired()
        try:
            connection = await open_connection(origin)
            self._open.add(connection)
            await checkpoint()  # do not send a request that was cancelled in the meantime
        except BaseException:
            if connection is not None:
                self._close(connection)
            self._release_slot(origin)
            raise
        return connection

    def release(self, connection: HTTPConnection, *, reusable: bool) -> None:
        """Return a connection and its slot. A connection that is not reusable is closed."""
        if reusable and connection.reusable and not self._closed:
            connection.mark_idle(monotonic(), self._keepalive_expiry)
            idle = self._origins[connection.origin].idle
            if connection.reliable_until == -math.inf:
                idle.appendleft(connection)  # reliable connections stay on top
            else:
                idle.append(connection)
        else:
            self._close(connection)
        self._release_slot(connection.origin)

    def count(self) -> ConnectionCounts:
        """Return the numbers of connections."""
        idle = sum(len(state.idle) for state in self._origins.values())
        return ConnectionCounts(len(self._open) - idle, idle)

    def close_idle(self) -> None:
        """Close the idle connections, and those in use when they are released."""
        self._closed = True
        for state in self._origins.values():
            while state.idle:
                self._close(state.idle.pop())
            if state.slots is not None:
                state.slots.release()  # each waiter fails, and wakes up the next one

    def close_without_loop(self) -> None:
        """Close all connections at once, outside of the event loop."""
        self._closed = True
        while self._open:
            self._open.pop().close_without_loop()

    async def _acquire_slot(
        self, slots: anyio.Semaphore, timeout: float | None, transmission: Transmission
    ) -> None:
        try:
            slots.acquire_nowait()
        except anyio.WouldBlock:
            transmission.waiting_for = f"max_connections ({self._max_connections})"
        else:
            return
        with anyio.move_on_after(timeout) as scope:
            await slots.acquire()
        if scope.cancelled_caught:
            raise PoolTimeout(f"no connection became free for {timeout} s")
        try:
            await checkpoint()  # do not send a request that was cancelled in the meantime
        except BaseException:
            slots.release()
            raise
        if self._closed:
            slots.release()
            raise RuntimeError("the transport was closed")
        transmission.waiting_for = ""

    def _release_slot(self, origin: Origin) -> None:
        slots = self._origins[origin].slots
        if slots is not None:
            slots.release()
        self._forget_request(origin)

    def _forget_request(self, origin: Origin) -> None:
        state = self._origins[origin]
        state.requests -= 1
        if not state.requests and not state.idle:
            del self._origins[origin]

    def _pop_idle(self, state: _OriginState, *, reliable: bool) -> HTTPConnection | None:
        now = monotonic()
        while state.idle:
            connection = state.idle[-1]
            is_open = connection.expires > now and not connection.stream.has_unread_data()
            if is_open and reliable and connection.reliable_until <= now:
                return None  # those below it are older or have failed, so none is reliable
            state.idle.pop()
            if is_open:
                return connection
            self._close(connection)
        return None

    def _close(self, connection: HTTPConnection) -> None:
        self._open.discard(connection)
        connection.close()

    def _close_expired(self) -> None:
        """Close expired connections, also those of origins without new requests."""
        now = monotonic()
        if now < self._next_expiry_check:
            return
        self._next_expiry_check = now + self._keepalive_expiry
        for origin, state in list(self._origins.items()):
            for connection in state.idle:
                if connection.expires <= now:
                    self._close(connection)
            state.idle = deque(each for each in state.idle if each.expires > now)
            if not (state.requests or state.idle):
                del self._origins[origin]


class _OriginState:
    """The requests to an origin, and its idle connections."""

    __slots__ = ("idle", "requests", "slots")

    def __init__(self, max_connections: int | None) -> None:
        #: The requests that use, open or wait for a connection.
        self.requests = 0
        self.idle: deque[HTTPConnection] = deque()
        #: The connections that may still be in use at once; ``None`` without a limit.
        self.slots = None if max_connections is None else anyio.Semaphore(max_connections)
