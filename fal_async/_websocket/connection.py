"""`WebSocket`: send, recv, close, keepalive."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint
from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode

from fal_async._net.background import spawn
from fal_async._net.running_loop import cancellation_check
from fal_async._net.time_slice import TimeSlice
from fal_async._websocket.buffers import HIGH_WATER, OPEN, ReceiveBuffer, SendBuffer
from fal_async._websocket.frames import TEXT, encode_frame, encode_message, random_masks
from fal_async.errors import (
    FalClientError,
    InvalidRequestError,
    InvalidResponseError,
    RealtimeDisconnectedError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from websockets.client import ClientProtocol

    from fal_async._net.background import BackgroundTask
    from fal_async._net.sockets import SocketStream

__all__ = ["ActivitySnapshot", "WebSocket"]

#: The time to wait for the server's close frame, in seconds.
CLOSE_TIMEOUT: Final = 5.0
#: The interval at which a background task reads while no task receives, in seconds.
IDLE_READ_INTERVAL: Final = 1.0
#: The maximum size of unsent pongs while the server reads nothing, in bytes.
MAX_PONG_BACKLOG: Final = 1024 * 1024
#: The maximum size of one read, in bytes. The allocator needs no system call for this size.
READ_SIZE: Final = 122880


class WebSocket:
    """A WebSocket connection.

    Several tasks may send, each message is sent as a whole; one task at a time may receive.

    Args:
        stream: The connection, after the handshake.
        protocol: The protocol of the connection, in state OPEN.
        early: The bytes that were received after the handshake response.
        max_message_size: The maximum size of a message, in bytes; ``None`` for no limit.
        ping_interval: The time without received data after which to send a ping, in seconds;
            ``None`` disables pings.
        ping_timeout: The time to wait for a response to a ping before the connection counts as
            lost, in seconds; ``None`` disables the timeout.
    """

    def __init__(
        self,
        stream: SocketStream,
        protocol: ClientProtocol,
        early: bytes = b"",
        *,
        max_message_size: int | None = None,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
    ) -> None:
        self._stream = stream
        self._protocol = protocol
        self._receive_buffer = ReceiveBuffer(protocol, max_message_size)
        self._send_buffer = SendBuffer(stream)
        self._masks = random_masks()
        self._time_slice = TimeSlice()
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._receiving = self._reading = False
        self._read_done: anyio.Event | None = None
        self._read_count = 0
        self._is_drained = False
        self._activity: anyio.Event | None = None
        self._pong_backlog = self._sent_before = 0
        self._lost_reason: str | None = None
        self._background: list[BackgroundTask] = []
        self._checkpoint_if_cancelled = cancellation_check()
        if early:
            self._receive_buffer.feed(early)

    def start(self) -> None:
        """Start the background tasks, which end with the connection or with the event loop."""
        # Not in a task group: `asyncio.run` would cancel them before the close frame is sent.
        tasks: list[Callable[[], Awaitable[None]]] = [self._write, self._read_while_idle]
        if self._ping_interval is not None:
            tasks.append(partial(self._keep_alive, self._ping_interval, self._ping_timeout))
        self._background = [spawn(task, grace_period=0) for task in tasks]

    def __repr__(self) -> str:
        return f"<WebSocket {'open' if self.is_open else f'closed with {self.close_code}'}>"

    @property
    def is_open(self) -> bool:
        """True if messages can be sent, as far as is known."""
        return self._protocol.state is OPEN and self._lost_reason is None

    @property
    def close_code(self) -> int | None:
        """The close code, 1006 for a connection lost without a close frame; ``None`` while open."""
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None:
            return received.code
        if self._receive_buffer.protocol_error is not None and sent is not None:
            return sent.code
        return None if self._lost_reason is None else CloseCode.ABNORMAL_CLOSURE.value

    @property
    def close_reason(self) -> str | None:
        """The close reason, which may be empty; ``None`` while open."""
        if self._protocol.close_rcvd is not None:
            return self._protocol.close_rcvd.reason
        return self._receive_buffer.protocol_error or self._lost_reason

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send text as a text message, bytes as a binary one; wait while much data is unsent.

        Raises:
            RealtimeDisconnectedError: The connection is closed.
            InvalidRequestError: The message is neither valid text nor bytes.
        """
        await self._checkpoint_if_cancelled()
        if self._send_buffer.size > HIGH_WATER:
            await self._send_buffer.drain()
        if not self._send_buffer.is_open:
            raise await self._closed_error()
        first_byte, payload = encode_message(message)
        if self._protocol.extensions:
            send = self._protocol.send_text if first_byte == TEXT else self._protocol.send_binary
            send(payload)
            self._write_protocol_output()
        else:
            self._send_buffer.write(encode_frame(first_byte, payload, next(self._masks)))

    async def recv(self) -> str | bytes | memoryview:
        """Receive the next message; a long one may be a view, which `reuse` takes back.

        Raises:
            RealtimeDisconnectedError: The connection is closed and all messages were received.
            InvalidResponseError: The server violated the protocol, or the message is too long.
            InvalidRequestError: Another task is receiving.
        """
        if self._receiving:
            raise InvalidRequestError(
                "cannot receive: another task is receiving from this connection"
            )
        messages = self._receive_buffer.messages
        if messages:
            await self._checkpoint_if_cancelled()
            if not self._time_slice.is_over:
                return self._receive_buffer.pop()
        self._receiving = True
        try:
            if messages:
                await self._time_slice.end()
            while not messages:
                if not self.is_open:
                    raise await self._closed_error()
                await self._read_once()
        finally:
            self._receiving = False
        return self._receive_buffer.pop()

    def reuse(self, message: memoryview) -> None:
        """Use the memory of a message, which nobody reads any more, for the next long one.

        New memory of this size has to be set to zero twice, by the kernel and by Python.
        """
        self._receive_buffer.reuse(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait up to `CLOSE_TIMEOUT` for the server's close frame.

        It may be called more than once, and while another task receives; that task then gets a
        `RealtimeDisconnectedError`. If it is cancelled, the connection is closed at once.

        Raises:
            InvalidRequestError: The code may not be sent, or the reason has more than 123 bytes.
        """
        if self.is_open:
            try:
                self._protocol.send_close(code, reason)
            except (ProtocolError, TypeError, AttributeError, UnicodeError) as error:
                raise InvalidRequestError(
                    f"the code and the reason of a close must be valid: {error}"
                ) from error
            self._write_protocol_output()
            self._send_buffer.flush()  # the task that writes may be cancelled already
        try:
            with anyio.move_on_after(CLOSE_TIMEOUT):
                while self._can_receive():
                    await self._read_once()
        finally:
            self.abort("the server did not respond to the close frame")
        for task in self._background:
            await task.wait()

    def abort(self, reason: str = "the client closed the connection") -> None:
        """Close the connection at once, without a close frame."""
        self._send_buffer.flush()
        self._connection_lost(reason)

    def close_without_loop(self) -> None:
        """Close the socket of an event loop that has ended or belongs to another process."""
        if self._lost_reason is None:
            self._lost_reason = "its event loop has ended or belongs to another process"
            self._send_buffer.is_open = False
            self._stream.close_without_loop()

    def finalize(self, *, _warn: Callable[..., None] = warnings.warn) -> None:
        """Warn about a connection that was not closed, and close it without waiting.

        For ``__del__``: it may be called on any thread.
        """
        if self.is_open and self._background:
            _warn(
                "a WebSocket was not closed: open it with 'async with', or call close()",
                ResourceWarning,
                source=self,
            )
            self._background[0].cancel_soon()

    async def _write(self) -> None:
        """Write messages that could not be written at once, until the connection is closed."""
        try:
            await self._send_buffer.run()
        finally:
            if self.is_open:
                self._protocol.send_close(CloseCode.GOING_AWAY)
                self._write_protocol_output()
            self.abort("the connection was not closed before its event loop ended")
            for task in self._background:
                task.cancel()

    async def _read_while_idle(self) -> None:
        """Read while no task receives, so that pings and close frames are processed."""
        while True:
            await anyio.sleep(IDLE_READ_INTERVAL)
            while not self._receiving and self._can_receive() and not self._receive_buffer.is_full:
                await self._read_once()

    async def _keep_alive(self, interval: float, timeout: float | None) -> None:
        """Send a ping when nothing was received, and close the connection without a response."""
        while True:
            before = self._snapshot()
            await anyio.sleep(interval)
            if self._snapshot().read_count != before.read_count or not self.is_open:
                continue
            self._protocol.send_ping(b"")
            self._write_protocol_output()
            at_ping = self._snapshot()
            self._activity = anyio.Event()
            with anyio.move_on_after(timeout):
                await self._activity.wait()
            if self._snapshot().is_lost_since(at_ping):
                self._connection_lost(
                    f"the server did not respond to a ping within {timeout:g} seconds"
                )

    def _snapshot(self) -> ActivitySnapshot:
        return ActivitySnapshot(
            read_count=self._read_count,
            sent=self._send_buffer.sent,
            unsent=self._send_buffer.size,
            is_reading=self._reading,
        )

    def _can_receive(self) -> bool:
        return self._lost_reason is None and self._protocol.close_rcvd is None

    async def _read_once(self) -> None:
        """Read available bytes, or wait for some; wait for another task if it is reading."""
        if self._reading:
            if self._read_done is None:
                self._read_done = anyio.Event()
            return await self._read_done.wait()
        self._reading = True
        try:
            if not (self._is_drained and self._receive_buffer.is_parsed) and self._read_available():
                await checkpoint()
                self._send_buffer.write_through = True
            else:
                await self._stream.wait_receivable()
                self._send_buffer.write_through = True
                self._read_available()
        finally:
            self._reading = False
            if self._read_done is not None:
                self._read_done.set()
                self._read_done = None

    def _read_available(self) -> bool:
        """Read and parse available bytes for a slice of time, until there is a message.

        Return whether anything was read, including the end of the stream.
        """
        self._time_slice.restart()
        has_read = False
        while self._read_nowait():
            has_read = True
            if self._receive_buffer.messages or self._time_slice.is_over or not self._can_receive():
                break
        return has_read

    def _read_nowait(self) -> bool:
        """Parse bytes that were received before, or else read once; return as `_read_available`."""
        if not self._receive_buffer.is_parsed:
            self._parse()
            return True
        buffer = self._receive_buffer.buffer
        received: bytes | int | None
        try:
            if buffer is None:
                received = self._stream.receive_nowait(READ_SIZE)
            else:
                received = self._stream.receive_into_nowait(buffer)
        except OSError as error:
            self._connection_lost(error.strerror or str(error))
            return True
        if not received:
            if received is None:
                return False
            self._connection_lost("the server closed the connection without a close frame")
            return True
        self._read_count += 1
        if self._activity is not None:
            self._activity.set()
            self._activity = None
        if isinstance(received, bytes):
            # Another read would be in vain. Over TLS, a wait costs more than that.
            self._is_drained = len(received) < READ_SIZE and self._stream.ssl_object is None
            self._receive_buffer.feed(received)
        else:
            self._receive_buffer.buffer_updated(received)
        self._parse()
        return True

    def _parse(self) -> None:
        """Parse received bytes, then send pongs and close frames of the protocol."""
        self._receive_buffer.parse(self._time_slice)
        if not self._receive_buffer.has_output:
            return
        self._receive_buffer.has_output = False
        # A server that sends pings and reads nothing must not fill the memory.
        if self._send_buffer.sent != self._sent_before:
            self._sent_before, self._pong_backlog = self._send_buffer.sent, 0
        if self._pong_backlog > MAX_PONG_BACKLOG and self._protocol.state is OPEN:
            self._protocol.data_to_send()  # only the last ping needs a pong (RFC 6455, 5.5.3)
            return
        self._pong_backlog -= self._send_buffer.size
        self._write_protocol_output()
        self._pong_backlog += self._send_buffer.size

    def _write_protocol_output(self) -> None:
        # The protocol also asks to close the connection, by an empty item; `close` does that.
        if frames := b"".join(self._protocol.data_to_send()):
            self._send_buffer.write(frames)
        self._send_buffer.is_open &= self._protocol.state is OPEN

    def _connection_lost(self, reason: str) -> None:
        """Close the socket; only the first reason is kept."""
        if self._lost_reason is None:
            self._lost_reason = reason
            self._protocol.receive_eof()
            self._send_buffer.close()
            self._stream.close()

    async def _closed_error(self) -> FalClientError:
        """Return the error of a call on a closed connection."""
        write_error = self._send_buffer.error
        if write_error is not None:
            # The last messages of the server explain best why writing failed.
            with anyio.move_on_after(CLOSE_TIMEOUT):
                while self.is_open and not self._receive_buffer.is_full and self._read_available():
                    await checkpoint()
            self._connection_lost(write_error.strerror or str(write_error))
        if self._receive_buffer.protocol_error is not None:
            return InvalidResponseError(
                f"the server violated the WebSocket protocol: {self._receive_buffer.protocol_error}"
            )
        sent = self._protocol.close_sent  # the server may not have responded yet
        code = self.close_code or (sent.code if sent else CloseCode.ABNORMAL_CLOSURE.value)
        return RealtimeDisconnectedError(code, self.close_reason or "")


@dataclass(frozen=True, slots=True)
class ActivitySnapshot:
    """The activity of a connection up to one moment.

    Attributes:
        read_count: The number of reads that received data.
        sent: The number of bytes that the socket has accepted.
        unsent: The number of bytes that the socket has not accepted yet.
        is_reading: Whether a task reads. No task reads while the receive buffer is full.
    """

    read_count: int
    sent: int
    unsent: int
    is_reading: bool

    def is_lost_since(self, ping: ActivitySnapshot) -> bool:
        """Return whether the server would have responded by now to an earlier ping.

        A long message on a slow network may delay the ping; while the socket accepts bytes of it,
        the server is reading.
        """
        is_sending = self.unsent > 0 and self.sent != ping.sent
        return self.read_count == ping.read_count and self.is_reading and not is_sending
