"""Sending what does not fit into one write, with an eye on replies that come before their time."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from fal_async._transport.encoding import LAST_CHUNK, frame
from fal_async._transport.errors import LocalProtocolError, WriteTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fal_async._transport.encoding import Outgoing
    from fal_async._transport.parsing import ReplyParser
    from fal_async._transport.sockets import SocketStream
    from fal_async._transport.transmission import Transmission

__all__ = ["Unsent", "send_head", "send_rest"]

#: Bytes offered to the socket before other tasks get their turn.
SLICE: Final = 262144
#: The most bytes that one TLS record holds (RFC 8446, section 5.1).
TLS_RECORD: Final = 16384


class Unsent(Exception):  # noqa: N818 -- a signal to the connection, which may yet find a reply
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
        raise Unsent(f"sending failed: {error.strerror or error}") from error


async def send_rest(
    stream: SocketStream,
    request: Outgoing,
    sent: int,
    reply: ReplyParser,
    timeout: float | None,
    transmission: Transmission,
) -> bool:
    """Send a request from its byte `sent` on, until a reply comes that says to stop.

    Args:
        stream: Where to.
        request: The request.
        sent: How many bytes of its head have been sent.
        reply: Takes what arrives in the meantime.
        timeout: How long nothing may go out, in seconds; ``None`` disables it.
        transmission: Learns that something was sent.

    Returns:
        Whether the whole request was sent.

    Raises:
        Unsent: The connection broke.
        WriteTimeout: Nothing went out for too long.
    """
    with anyio.CancelScope() as scope:  # one for all waits, whose deadline is moved
        sender = _Sender(stream, reply, scope, timeout, transmission)
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
        reply: ReplyParser,
        scope: anyio.CancelScope,
        timeout: float | None,
        transmission: Transmission,
    ) -> None:
        self._stream = stream
        self._reply = reply
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
            if not await self.send(memoryview(frame(part) if length is None else part)):
                return False
        if length is None:
            return await self.send(memoryview(LAST_CHUNK))
        if total < length:
            raise LocalProtocolError(f"the body has {total} of the {length} bytes it announced")
        return True

    async def send(self, rest: memoryview) -> bool:
        """Send everything, unless the peer does not want more."""
        while rest:
            if self._is_refused():
                return False
            sent = _send_nowait(self._stream, rest[:SLICE])
            if sent:
                self._transmission.sent = True
                await checkpoint()
            else:
                await self._wait()
            rest = rest[sent:]
        return True

    def _is_refused(self) -> bool:
        """Whether a reply has come that makes the rest of the request pointless."""
        reply = self._reply
        if not reply.has_head and reply.failure is None:
            try:
                received = self._stream.receive_nowait()
            except OSError as error:
                raise Unsent(f"sending failed: {error.strerror or error}") from error
            if received == b"" and not reply.started:
                raise Unsent("the connection was closed before the request was sent")
            if received is not None:
                reply.feed(received)
        return reply.failure is not None or reply.status >= 300

    async def _wait(self) -> None:
        self._scope.deadline = anyio.current_time() + self._timeout
        if self._reply.has_head:
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
