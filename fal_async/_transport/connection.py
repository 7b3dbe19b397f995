"""One connection: a request goes out, its reply comes in, piece by piece as it is asked for."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from fal_async._transport.errors import ReadError, ReadTimeout, WriteError
from fal_async._transport.sending import Unsent, send_head, send_rest
from fal_async._transport.tasks import within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async._transport.encoding import Outgoing
    from fal_async._transport.parsing import ReplyParser
    from fal_async._transport.places import Origin
    from fal_async._transport.sockets import SocketStream
    from fal_async._transport.transmission import Transmission

__all__ = ["Connection", "ReceivedBody", "ReplyBody", "Timeouts"]

#: The bounds of connecting, reading, writing and waiting for a connection, in seconds.
Timeouts: TypeAlias = "Mapping[str, float | None]"
#: How much of the time that a server keeps an idle connection is made use of. The rest is for the
#: way there, and for clocks that differ.
IDLE_MARGIN: Final = 0.8


class Connection:
    """A connection to an origin.

    Attributes:
        stream: The socket, plain or TLS.
        client_addr: The address of this end.
        server_addr: That of the peer.
        origin: What it is connected to.
        expires: When it is too old to be used again, on the monotonic clock.
        reliable_until: Until when it may carry a request that cannot be repeated.
        served: How many exchanges have begun on it.
        usable: Whether nothing has happened that rules out another exchange.
    """

    __slots__ = (
        "_reply",
        "client_addr",
        "expires",
        "origin",
        "reliable_until",
        "served",
        "server_addr",
        "stream",
        "usable",
    )

    def __init__(self, origin: Origin, stream: SocketStream) -> None:
        self.stream = stream
        self.client_addr, self.server_addr = stream.addresses
        self.origin = origin
        self.expires = self.reliable_until = math.inf
        self.served = 0
        self.usable = True
        self._reply: ReplyParser | None = None

    def rest(self, now: float, keepalive_expiry: float) -> None:
        """Decide how long the connection may be used again, now that it is idle.

        A server that answers with an error of its own may be about to restart. One that closes idle
        connections may do so while a request is on its way to it. Neither harms a request that can
        be repeated; one that cannot needs a connection on which nothing of the kind is likely.

        Args:
            now: The time, on the monotonic clock.
            keepalive_expiry: The longest idle time, in seconds; that which the server has announced
                counts where it is shorter.
        """
        reply, self._reply = self._reply, None
        announced = None if reply is None else reply.keep_alive
        lifetime = keepalive_expiry
        if announced is not None:
            lifetime = min(lifetime, announced * IDLE_MARGIN)
        self.expires = now + lifetime
        has_failed = reply is not None and reply.status >= 500
        self.reliable_until = -math.inf if has_failed else now + lifetime * IDLE_MARGIN

    def is_quiet(self) -> bool:
        """Whether the peer has sent nothing that nobody asked for, not even an end."""
        return self.stream.is_quiet()

    def close(self) -> None:
        """Close at once."""
        self.stream.close()

    def drop(self) -> None:
        """Close at once, outside of the event loop."""
        self.stream.drop()

    async def exchange(
        self,
        request: Outgoing,
        reply: ReplyParser,
        timeouts: Timeouts,
        transmission: Transmission,
    ) -> None:
        """Send a request and receive the head of its reply, with what came along of the body.

        Raises:
            ExchangeError: There is no reply. What has arrived is in `reply`.
        """
        self.served += 1
        self.usable = not request.last
        self._reply = reply
        unsent = await self._send(request, reply, timeouts.get("write"), transmission)
        try:
            if (tracer := transmission.tracer) is None:
                await self._receive_head(reply, timeouts.get("read"))
            else:
                async with tracer.step("http11.receive_response_headers") as step:
                    await self._receive_head(reply, timeouts.get("read"))
                    version = f"HTTP/{reply.http_version}".encode()
                    step.return_value = (version, reply.status, reply.reason, reply.headers)
        except ReadError:
            if unsent is not None and not reply.started:
                raise WriteError(str(unsent)) from unsent.__cause__
            raise

    async def _send(
        self,
        request: Outgoing,
        reply: ReplyParser,
        timeout: float | None,
        transmission: Transmission,
    ) -> Unsent | None:
        try:
            if (tracer := transmission.tracer) is None:
                sent = send_head(self.stream, request.head, transmission)
                if sent < len(request.head) or request.body:
                    self.usable &= await send_rest(
                        self.stream, request, sent, reply, timeout, transmission
                    )
            else:
                async with tracer.step("http11.send_request_headers"):
                    sent = send_head(self.stream, request.head, transmission)
                async with tracer.step("http11.send_request_body"):
                    self.usable &= await send_rest(
                        self.stream, request, sent, reply, timeout, transmission
                    )
        except Unsent as error:
            # The peer may have replied before it closed, and what it said is worth more.
            self.usable = False
            return error
        return None

    async def _receive_head(self, reply: ReplyParser, timeout: float | None) -> None:
        if timeout is None:  # a scope costs more than a wait
            await self._receive_parts(reply, None)
            return
        # One scope for all waits, whose deadline is moved.
        with anyio.CancelScope() as scope:
            await self._receive_parts(reply, partial(_extend, scope, timeout))
            return
        raise ReadTimeout(f"there was no reply for {timeout} s")

    async def _receive_parts(self, reply: ReplyParser, extend: Callable[[], None] | None) -> None:
        while not reply.has_head:
            if reply.failure is not None:
                raise reply.failure
            if extend is not None:
                extend()
            await self.stream.wait_receivable()
            received = self._receive_nowait()
            if received == b"" and not reply.started:
                raise ReadError("the connection was closed without a reply")
            if received is not None:
                reply.feed(received)

    def _receive_nowait(self) -> bytes | None:
        try:
            return self.stream.receive_nowait()
        except OSError as error:
            raise ReadError(f"the connection broke: {error.strerror or error}") from error

    async def receive(self, timeout: float | None) -> bytes:
        """Wait for more of the reply; ``b""`` is the end of the connection.

        Args:
            timeout: How long to wait, in seconds; ``None`` for as long as it takes.

        Raises:
            ReadTimeout: Nothing came.
            ReadError: The connection broke.
        """
        received = self._receive_nowait()
        if received is not None:
            await checkpoint()
            return received
        with within(timeout):
            while received is None:
                await self.stream.wait_receivable()
                received = self._receive_nowait()
            return received
        raise ReadTimeout(f"there was no more of the reply for {timeout} s")


def _extend(scope: anyio.CancelScope, timeout: float) -> None:
    scope.deadline = anyio.current_time() + timeout


class Release(Protocol):
    """Gives a connection back, telling whether it may carry another exchange."""

    def __call__(self, *, reusable: bool) -> None: ...


class ReceivedBody:
    """The body of a reply all of which has been received.

    Args:
        reply: The reply.
    """

    def __init__(self, reply: ReplyParser) -> None:
        self._reply = reply

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._reply.pieces:
            raise StopAsyncIteration
        return self._reply.take()

    async def aclose(self) -> None:
        """There is nothing to close."""


class ReplyBody:
    """The body of a reply, received as it is asked for.

    Args:
        connection: Where it comes from.
        reply: What has arrived.
        timeout: The longest silence, in seconds; ``None`` disables it.
        release: Called once, as soon as the connection has no more part in the reply.
    """

    def __init__(
        self,
        connection: Connection,
        reply: ReplyParser,
        timeout: float | None,
        release: Release,
    ) -> None:
        self._connection = connection
        self._reply = reply
        self._timeout = timeout
        self._release: Release | None = release

    def __del__(self) -> None:
        self._let_go(reusable=False)  # nobody will read the rest of a reply that was dropped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        reply = self._reply
        while not reply.pieces:
            if reply.complete:
                raise StopAsyncIteration
            await self._receive()
        return reply.take()

    async def _receive(self) -> None:
        reply = self._reply
        if reply.failure is not None:
            self._let_go(reusable=False)
            raise reply.failure
        if self._release is None:
            raise ReadError("the reply was closed before its end")
        try:
            reply.feed(await self._connection.receive(self._timeout))
        except BaseException:
            self._let_go(reusable=False)
            raise
        if reply.complete:
            self._let_go(reusable=reply.reusable)

    def _let_go(self, *, reusable: bool) -> None:
        release, self._release = self._release, None
        if release is not None:
            release(reusable=reusable)

    async def aclose(self) -> None:
        """Close the connection, unless the reply has been read to its end."""
        self._let_go(reusable=False)
