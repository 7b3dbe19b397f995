"""HTTP/1.1 connection: request out, response in."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
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
from fal_async._net.sockets import CHUNK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from fal_async._http.encoder import EncodedRequest
    from fal_async._http.parser import ResponseParser
    from fal_async._http.transmission import Transmission
    from fal_async._http.urls import Origin
    from fal_async._net.sockets import SocketStream

__all__ = ["HTTPConnection", "ResponseBody", "Timeouts"]

#: The timeouts ``connect``, ``read``, ``write`` and ``pool``, in seconds, as httpx names them.
Timeouts: TypeAlias = "Mapping[str, float | None]"

#: The fraction of a server's keep-alive timeout in which an idle connection is reused. The rest
#: allows for network delay and for clocks that differ.
IDLE_MARGIN: Final = 0.8
#: Maximum number of bytes that are read of a body at once, when the peer is faster than the reader.
MAX_READ: Final = 262144
#: Bytes offered to the socket before other tasks run.
MAX_WRITE: Final = 262144


class HTTPConnection:
    """A connection to an origin.

    Attributes:
        stream: The socket, plain or TLS.
        client_addr: The local address.
        server_addr: The address of the peer.
        origin: The origin that it is connected to.
        expires: When it becomes too old to be reused, on the monotonic clock.
        reliable_until: The end of the time in which it may carry a request that cannot be repeated.
        request_count: The number of requests that have started on it.
        reusable: Whether it can carry another request, as far as is known.
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

    async def request(
        self,
        request: EncodedRequest,
        response: ResponseParser,
        timeouts: Timeouts,
        transmission: Transmission,
    ) -> None:
        """Send a request and receive the head of its response.

        The bytes of the body that arrive with the head are in `response` as well.

        Raises:
            ExchangeError: There is no response. Bytes that have arrived are in `response`.
        """
        self.request_count += 1
        self.reusable = not request.closes_connection
        self._response = response
        tracer = transmission.tracer
        send_error: WriteError | None = None
        try:
            if tracer is None:
                sent = self._send_head(request.head, transmission)
                if sent < len(request.head) or request.body:
                    await self._send_rest(request, sent, timeouts.get("write"), transmission)
            else:
                async with tracer.step("http11.send_request_headers"):
                    sent = self._send_head(request.head, transmission)
                async with tracer.step("http11.send_request_body"):
                    await self._send_rest(request, sent, timeouts.get("write"), transmission)
        except WriteError as error:
            # The peer may have responded before it closed the connection. That response explains
            # more than the error does.
            self.reusable = False
            send_error = error
        try:
            if tracer is None:
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
            if send_error is not None and not response.started:
                raise send_error from send_error.__cause__
            raise

    def _send_head(self, head: memoryview, transmission: Transmission) -> int:
        """Write the head without waiting; return how many of its bytes were sent."""
        try:
            sent = self.stream.send_nowait(head)
        except OSError as error:
            raise _write_error(error) from error
        if sent:
            transmission.sent = True
        return sent

    async def _send_rest(
        self, request: EncodedRequest, sent: int, timeout: float | None, transmission: Transmission
    ) -> None:
        assert self._response is not None  # noqa: S101 -- set by `request`
        sender = _RequestSender(self.stream, self._response, timeout, transmission)
        self.reusable &= await sender.send(request, sent)

    async def _receive_head(self, response: ResponseParser, timeout: float | None) -> None:
        while not response.has_head:
            if response.failure is not None:
                raise response.failure
            if not await self.stream.wait_receivable(timeout):
                raise ReadTimeout(f"no response was received for {timeout} s")
            received = self._receive_nowait()
            if received == b"" and not response.started:
                raise ReadError("the connection was closed without a response")
            if received is not None:
                response.feed(received)

    async def receive(self, timeout: float | None, max_bytes: int) -> bytes:
        """Receive more of the response; ``b""`` is the end of the connection.

        Args:
            timeout: Maximum time to wait, in seconds; ``None`` disables the timeout.
            max_bytes: Maximum number of bytes.

        Raises:
            ReadTimeout: Nothing arrived in time.
            ReadError: The connection broke.
        """
        received = self._receive_nowait(max_bytes)
        if received is not None:
            await checkpoint()
            return received
        while received is None:
            if not await self.stream.wait_receivable(timeout):
                raise ReadTimeout(f"no more of the response was received for {timeout} s")
            received = self._receive_nowait(max_bytes)
        return received

    def _receive_nowait(self, max_bytes: int = CHUNK) -> bytes | None:
        try:
            return self.stream.receive_nowait(max_bytes)
        except OSError as error:
            raise ReadError(f"the connection broke: {error.strerror or error}") from error

    def mark_idle(self, now: float, keepalive_expiry: float) -> None:
        """Set how long the connection may be reused, now that it is idle.

        A server that responds with a server error may be about to restart. A server that closes
        idle connections may do so while a request is on its way. Neither harms a request that can
        be repeated. A request that cannot be repeated needs a connection where both are unlikely.

        Args:
            now: The time, on the monotonic clock.
            keepalive_expiry: Maximum idle time, in seconds. A shorter ``Keep-Alive`` timeout of the
                server takes precedence.
        """
        response, self._response = self._response, None
        lifetime = keepalive_expiry
        if response is not None and response.keep_alive is not None:
            lifetime = min(lifetime, response.keep_alive * IDLE_MARGIN)
        self.expires = now + lifetime
        has_failed = response is not None and response.status >= 500
        self.reliable_until = -math.inf if has_failed else now + lifetime * IDLE_MARGIN

    def close(self) -> None:
        """Close the connection at once."""
        self.stream.close()

    def close_without_loop(self) -> None:
        """Close the connection at once, outside of the event loop."""
        self.stream.close_without_loop()


class _RequestSender:
    """Sends the part of a request that did not fit into the first write.

    It stops when a response arrives that makes the rest of the request pointless.
    """

    def __init__(
        self,
        stream: SocketStream,
        response: ResponseParser,
        timeout: float | None,
        transmission: Transmission,
    ) -> None:
        self._stream = stream
        self._response = response
        self._timeout = timeout
        self._transmission = transmission
        self._scope = anyio.CancelScope()  # one scope for all waits: its deadline moves

    async def send(self, request: EncodedRequest, sent: int) -> bool:
        """Send a request from its byte `sent` on.

        Returns:
            Whether the whole request was sent.

        Raises:
            WriteError: The connection broke.
            WriteTimeout: Nothing could be sent for too long.
        """
        with self._scope:
            if not await self._send(request.head[sent:]):
                return False
            if isinstance(request.body, bytes):
                return await self._send(memoryview(request.body))
            return await self._send_chunks(request.body, request.length)
        raise WriteTimeout(f"nothing could be sent for {self._timeout} s")

    async def _send_chunks(self, chunks: AsyncIterator[bytes], length: int | None) -> bool:
        total = 0
        try:
            async for chunk in chunks:
                total += len(chunk)
                if length is not None and total > length:
                    raise LocalProtocolError(f"the body must have {length} bytes, got more")
                data = encode_chunk(chunk) if length is None else chunk
                if not await self._send(memoryview(data)):
                    return False
            if length is None:
                return await self._send(memoryview(LAST_CHUNK))
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        if total < length:
            raise LocalProtocolError(f"the body must have {length} bytes, got {total}")
        return True

    async def _send(self, data: memoryview) -> bool:
        """Send all data, unless a response makes it pointless; return whether all was sent."""
        response = self._response
        while data:
            if not response.has_head and response.failure is None:
                try:
                    received = self._stream.receive_nowait()
                except OSError as error:
                    raise _write_error(error) from error
                if received == b"" and not response.started:
                    raise WriteError("the connection was closed before the request was sent")
                if received is not None:
                    response.feed(received)
            if response.failure is not None or response.status >= 300:
                return False
            try:
                sent = self._stream.send_nowait(data[:MAX_WRITE])
            except OSError as error:
                raise _write_error(error) from error
            if sent:
                self._transmission.sent = True
                await checkpoint()
            else:
                await self._wait()
            data = data[sent:]
        return True

    async def _wait(self) -> None:
        """Wait until more can be sent, or until a response arrives."""
        if self._timeout is not None:
            self._scope.deadline = anyio.current_time() + self._timeout
        if self._response.has_head:
            await self._stream.wait_sendable()
        else:
            async with anyio.create_task_group() as group:

                async def wait(ready: Callable[[], Awaitable[object]]) -> None:
                    await ready()
                    group.cancel_scope.cancel()

                group.start_soon(wait, self._stream.wait_sendable)
                group.start_soon(wait, self._stream.wait_receivable)
        self._scope.deadline = math.inf


def _write_error(error: OSError) -> WriteError:
    return WriteError(f"sending failed: {error.strerror or error}")


class Release(Protocol):
    """Returns a connection to its pool, reusable or not."""

    def __call__(self, *, reusable: bool) -> None: ...


class ResponseBody:
    """The body of a response, received while it is read.

    The reads of a long body become larger, as long as the peer fills them.

    Args:
        connection: The connection that the body arrives on.
        response: The parser of the response.
        timeout: Read timeout, in seconds; ``None`` disables it.
        release: Called once, as soon as the response needs the connection no more.
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
        self._read_size = CHUNK
        self._release: Release | None = release

    def __del__(self) -> None:
        self._release_once(reusable=False)  # the rest of the body is still on its way

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        response = self._response
        while not response.body_chunks:
            if response.complete:
                raise StopAsyncIteration
            if response.failure is not None:
                self._release_once(reusable=False)
                raise response.failure
            if self._release is None:
                raise ReadError("the response was closed before its end")
            try:
                received = await self._connection.receive(self._timeout, self._read_size)
                # Chunks are parsed one by one, which must not take long.
                if len(received) == self._read_size and response.remaining is not None:
                    self._read_size = min(2 * self._read_size, MAX_READ)
                response.feed(received)
            except BaseException:
                self._release_once(reusable=False)
                raise
            if response.complete:
                self._release_once(reusable=response.reusable)
        return response.read_body()

    def interrupt(self) -> None:
        """Close the connection at once; see `BodyStream.interrupt`."""
        self._release_once(reusable=False)

    async def aclose(self) -> None:
        """Close the connection, unless the response was read to its end."""
        self._release_once(reusable=False)

    def _release_once(self, *, reusable: bool) -> None:
        release, self._release = self._release, None
        if release is not None:
            release(reusable=reusable)
