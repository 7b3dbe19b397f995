"""HTTP/1.1 connection: request out, response in."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from fal_async._http.encoder import LAST_CHUNK, encode_chunk
from fal_async._net.errors import (
    LocalProtocolError,
    ReadError,
    ReadTimeout,
    WriteError,
    WriteTimeout,
)
from fal_async._net.tasks import optional_timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from fal_async._http.encoder import EncodedRequest
    from fal_async._http.parser import ResponseParser
    from fal_async._http.transmission import Transmission
    from fal_async._http.urls import Origin
    from fal_async._net.sockets import SocketStream

__all__ = [
    "HTTPConnection",
    "ReceivedBody",
    "ResponseBody",
    "Timeouts",
    "_SendFailed",
    "send_head",
    "send_rest",
]


#: Bytes offered to the socket before other tasks get their turn.
MAX_WRITE: Final = 262144


#: The most bytes that one TLS record holds (RFC 8446, section 5.1).
TLS_RECORD: Final = 16384


class _SendFailed(Exception):  # noqa: N818 - it is an answer of the platform, nothing went wrong
    """The connection broke while the request was being sent."""


def send_head(stream: SocketStream, head: memoryview, transmission: Transmission) -> int:
    """Send what goes out at once of the beginning of a request.

    This is where it is known whether anything was sent. OpenSSL does not tell how many records of
    a write went out before it failed or had to wait, so only a failed write of a single record is
    certain to have sent nothing.

    Raises:
        Unsent: The connection is broken.
    """
    if stream.is_tls and len(head) > TLS_RECORD:
        transmission.sent = True
    sent = _send_nowait(stream, head)
    if sent or stream.is_tls:
        transmission.sent = True
    return sent


def _send_nowait(stream: SocketStream, item: bytes | memoryview) -> int:
    try:
        return stream.send_nowait(item)
    except OSError as error:
        raise _SendFailed(f"sending failed: {error.strerror or error}") from error


async def send_rest(
    stream: SocketStream,
    request: EncodedRequest,
    sent: int,
    response: ResponseParser,
    timeout: float | None,
    transmission: Transmission,
) -> bool:
    """Send a request from its byte `sent` on, until a response comes that says to stop.

    Args:
        stream: Where to.
        request: The request.
        sent: How many bytes of its head have been sent.
        response: Takes what arrives in the meantime.
        timeout: How long nothing may go out, in seconds; ``None`` disables it.
        transmission: Learns that something was sent.

    Returns:
        Whether the whole request was sent.

    Raises:
        Unsent: The connection broke.
        WriteTimeout: Nothing went out for too long.
    """
    with anyio.CancelScope() as scope:  # one for all waits, whose deadline is moved
        sender = _Sender(stream, response, scope, timeout, transmission)
        if not await sender.send(request.head[sent:]):
            return False
        if isinstance(request.body, bytes):
            return await sender.send(memoryview(request.body))
        return await sender.send_parts(request.body, request.length)
    raise WriteTimeout(f"nothing could be sent for {timeout} s")


class _Sender:
    def __init__(
        self,
        stream: SocketStream,
        response: ResponseParser,
        scope: anyio.CancelScope,
        timeout: float | None,
        transmission: Transmission,
    ) -> None:
        self._stream = stream
        self._response = response
        self._scope = scope
        self._timeout = math.inf if timeout is None else timeout
        self._transmission = transmission

    async def send_parts(self, parts: AsyncIterator[bytes], length: int | None) -> bool:
        try:
            return await self._send_each(parts, length)
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()

    async def _send_each(self, parts: AsyncIterator[bytes], length: int | None) -> bool:
        total = 0
        async for part in parts:
            total += len(part)
            if length is not None and total > length:
                raise LocalProtocolError(f"the body has more than the {length} bytes it announced")
            if not await self.send(memoryview(encode_chunk(part) if length is None else part)):
                return False
        if length is None:
            return await self.send(memoryview(LAST_CHUNK))
        if total < length:
            raise LocalProtocolError(f"the body has {total} of the {length} bytes it announced")
        return True

    async def send(self, rest: memoryview) -> bool:
        """Send everything, unless the peer does not want more."""
        while rest:
            if self._peer_stopped_reading():
                return False
            sent = _send_nowait(self._stream, rest[:MAX_WRITE])
            if sent:
                self._transmission.sent = True
                await checkpoint()
            else:
                await self._wait()
            rest = rest[sent:]
        return True

    def _peer_stopped_reading(self) -> bool:
        """Whether a response has come that makes the rest of the request pointless."""
        response = self._response
        if not response.has_head and response.failure is None:
            try:
                received = self._stream.receive_nowait()
            except OSError as error:
                raise _SendFailed(f"sending failed: {error.strerror or error}") from error
            if received == b"" and not response.started:
                raise _SendFailed("the connection was closed before the request was sent")
            if received is not None:
                response.feed(received)
        return response.failure is not None or response.status >= 300

    async def _wait(self) -> None:
        self._scope.deadline = anyio.current_time() + self._timeout
        if self._response.has_head:
            await self._stream.wait_sendable()
        else:
            await _wait_for_either(self._stream.wait_sendable, self._stream.wait_receivable)
        self._scope.deadline = math.inf


async def _wait_for_either(*waits: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as group:

        async def first(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            group.cancel_scope.cancel()

        for wait in waits:
            group.start_soon(first, wait)


#: The bounds of connecting, reading, writing and waiting for a connection, in seconds.
Timeouts: TypeAlias = "Mapping[str, float | None]"


#: How much of the time that a server keeps an idle connection is made use of. The rest is for the
#: way there, and for clocks that differ.
IDLE_MARGIN: Final = 0.8


class HTTPConnection:
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
        "_response",
        "client_addr",
        "expires",
        "origin",
        "reliable_until",
        "request_count",
        "reusable",
        "server_addr",
        "stream",
    )

    def __init__(self, origin: Origin, stream: SocketStream) -> None:
        self.stream = stream
        self.client_addr, self.server_addr = stream.addresses
        self.origin = origin
        self.expires = self.reliable_until = math.inf
        self.request_count = 0
        self.reusable = True
        self._response: ResponseParser | None = None

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
        response, self._response = self._response, None
        announced = None if response is None else response.keep_alive
        lifetime = keepalive_expiry
        if announced is not None:
            lifetime = min(lifetime, announced * IDLE_MARGIN)
        self.expires = now + lifetime
        has_failed = response is not None and response.status >= 500
        self.reliable_until = -math.inf if has_failed else now + lifetime * IDLE_MARGIN

    def is_quiet(self) -> bool:
        """Whether the peer has sent nothing that nobody asked for, not even an end."""
        return self.stream.is_quiet()

    def close(self) -> None:
        """Close at once."""
        self.stream.close()

    def drop(self) -> None:
        """Close at once, outside of the event loop."""
        self.stream.close_without_loop()

    async def exchange(
        self,
        request: EncodedRequest,
        response: ResponseParser,
        timeouts: Timeouts,
        transmission: Transmission,
    ) -> None:
        """Send a request and receive the head of its response, with what came along of the body.

        Raises:
            ExchangeError: There is no response. What has arrived is in `response`.
        """
        self.request_count += 1
        self.reusable = not request.closes_connection
        self._response = response
        unsent = await self._send(request, response, timeouts.get("write"), transmission)
        try:
            if (tracer := transmission.tracer) is None:
                await self._receive_head(response, timeouts.get("read"))
            else:
                async with tracer.step("http11.receive_response_headers") as step:
                    await self._receive_head(response, timeouts.get("read"))
                    version = f"HTTP/{response.http_version}".encode()
                    step.return_value = (
                        version,
                        response.status,
                        response.reason,
                        response.headers,
                    )
        except ReadError:
            if unsent is not None and not response.started:
                raise WriteError(str(unsent)) from unsent.__cause__
            raise

    async def _send(
        self,
        request: EncodedRequest,
        response: ResponseParser,
        timeout: float | None,
        transmission: Transmission,
    ) -> _SendFailed | None:
        try:
            if (tracer := transmission.tracer) is None:
                sent = send_head(self.stream, request.head, transmission)
                if sent < len(request.head) or request.body:
                    self.reusable &= await send_rest(
                        self.stream, request, sent, response, timeout, transmission
                    )
            else:
                async with tracer.step("http11.send_request_headers"):
                    sent = send_head(self.stream, request.head, transmission)
                async with tracer.step("http11.send_request_body"):
                    self.reusable &= await send_rest(
                        self.stream, request, sent, response, timeout, transmission
                    )
        except _SendFailed as error:
            # The peer may have replied before it closed, and what it said is worth more.
            self.reusable = False
            return error
        return None

    async def _receive_head(self, response: ResponseParser, timeout: float | None) -> None:
        if timeout is None:  # a scope costs more than a wait
            await self._receive_parts(response, None)
            return
        # One scope for all waits, whose deadline is moved.
        with anyio.CancelScope() as scope:
            await self._receive_parts(response, partial(_extend, scope, timeout))
            return
        raise ReadTimeout(f"there was no response for {timeout} s")

    async def _receive_parts(
        self, response: ResponseParser, extend: Callable[[], None] | None
    ) -> None:
        while not response.has_head:
            if response.failure is not None:
                raise response.failure
            if extend is not None:
                extend()
            await self.stream.wait_receivable()
            received = self._receive_nowait()
            if received == b"" and not response.started:
                raise ReadError("the connection was closed without a response")
            if received is not None:
                response.feed(received)

    def _receive_nowait(self) -> bytes | None:
        try:
            return self.stream.receive_nowait()
        except OSError as error:
            raise ReadError(f"the connection broke: {error.strerror or error}") from error

    async def receive(self, timeout: float | None) -> bytes:
        """Wait for more of the response; ``b""`` is the end of the connection.

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
        with optional_timeout(timeout):
            while received is None:
                await self.stream.wait_receivable()
                received = self._receive_nowait()
            return received
        raise ReadTimeout(f"there was no more of the response for {timeout} s")


def _extend(scope: anyio.CancelScope, timeout: float) -> None:
    scope.deadline = anyio.current_time() + timeout


class Release(Protocol):
    """Gives a connection back, telling whether it may carry another exchange."""

    def __call__(self, *, reusable: bool) -> None: ...


class ReceivedBody:
    """The body of a response all of which has been received.

    Args:
        response: The response.
    """

    def __init__(self, response: ResponseParser) -> None:
        self._response = response

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._response.body_chunks:
            raise StopAsyncIteration
        return self._response.read_body()

    async def aclose(self) -> None:
        """There is nothing to close."""


class ResponseBody:
    """The body of a response, received as it is asked for.

    Args:
        connection: Where it comes from.
        response: What has arrived.
        timeout: The longest silence, in seconds; ``None`` disables it.
        release: Called once, as soon as the connection has no more part in the response.
    """

    def __init__(
        self,
        connection: HTTPConnection,
        response: ResponseParser,
        timeout: float | None,
        release: Release,
    ) -> None:
        self._connection = connection
        self._response = response
        self._timeout = timeout
        self._release: Release | None = release

    def __del__(self) -> None:
        self._release_once(
            reusable=False
        )  # nobody will read the rest of a response that was dropped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        response = self._response
        while not response.body_chunks:
            if response.complete:
                raise StopAsyncIteration
            await self._receive()
        return response.read_body()

    async def _receive(self) -> None:
        response = self._response
        if response.failure is not None:
            self._release_once(reusable=False)
            raise response.failure
        if self._release is None:
            raise ReadError("the response was closed before its end")
        try:
            response.feed(await self._connection.receive(self._timeout))
        except BaseException:
            self._release_once(reusable=False)
            raise
        if response.complete:
            self._release_once(reusable=response.reusable)

    def _release_once(self, *, reusable: bool) -> None:
        release, self._release = self._release, None
        if release is not None:
            release(reusable=reusable)

    async def aclose(self) -> None:
        """Close the connection, unless the response has been read to its end."""
        self._release_once(reusable=False)
