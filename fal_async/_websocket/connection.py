"""`WebSocket`: send, recv, close, keepalive."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled
from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode
from websockets.protocol import State

from fal_async._net.background import spawn
from fal_async._net.time_slices import TimeSlice
from fal_async._websocket.buffers import RECEIVE_BUFFER, ReceiveBuffer, SendBuffer
from fal_async._websocket.frames import BINARY, TEXT, encode_frame
from fal_async.errors import (
    FalClientError,
    InvalidRequestError,
    InvalidResponseError,
    RealtimeDisconnectedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.client import ClientProtocol

    from fal_async._net.background import BackgroundTask
    from fal_async._net.sockets import SocketStream

__all__ = ["CLOSE_TIMEOUT", "WebSocket", "_ActivitySnapshot"]


@dataclass(frozen=True, slots=True)
class _ActivitySnapshot:
    """What is known of the other side at one moment.

    Attributes:
        heard: How often something has arrived from it.
        taken: How many bytes the network has taken for it.
        waiting: How many bytes the network has not taken yet.
        is_heard: Whether what arrives is read; it is not while too much is held already.
    """

    heard: int
    taken: int
    waiting: int
    is_heard: bool

    def is_unresponsive_since(self, asked: _ActivitySnapshot) -> bool:
        """Whether it would have answered by now a question that was put into the outbox then.

        A long message on a slow network may be in front of the question; as long as the network
        takes more of it, there is somebody who does.
        """
        is_moving = self.waiting > 0 and self.taken != asked.taken
        return self.heard == asked.heard and self.is_heard and not is_moving


#: How long the other side may take to answer a close, in seconds.
CLOSE_TIMEOUT: Final = 5.0


#: How long nobody may have received before the background task reads, in seconds.
IDLE_READ_INTERVAL: Final = 1.0


#: How many bytes of answers to pings may wait while the other side takes nothing.
MAX_UNACKNOWLEDGED_PONGS: Final = 1024 * 1024


#: How much is read at once, in bytes: about as much as memory is had for without asking the system.
READ: Final = 122880


class WebSocket:
    """One open connection.

    Several tasks may send, each message goes whole; one at a time may receive.

    Args:
        stream: The connection, after the handshake.
        protocol: Its state machine, open.
        early: What has been received after the handshake.
        max_message_size: The longest message to accept, in bytes; ``None`` for any.
        ping_interval: After so many seconds of silence the other side is asked for a sign of life;
            ``None`` never asks.
        ping_timeout: How many seconds it has for that; ``None`` for any number.
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
        self._inbox = ReceiveBuffer(protocol, max_message_size)
        self._time_slice = TimeSlice()
        self._outbox = SendBuffer(stream)
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._receiving = False
        self._reading = False
        self._read: anyio.Event | None = None
        self._reads = 0
        self._activity: anyio.Event | None = None
        self._taken = 0
        self._unacknowledged_pongs = 0
        self._lost: str | None = None
        self._background: list[BackgroundTask] = []
        if early:
            self._feed(early)

    def __repr__(self) -> str:
        return f"<WebSocket {'open' if self.is_open else f'closed with {self.close_code}'}>"

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent, as far as is known."""
        return self._protocol.state is State.OPEN and self._lost is None

    @property
    def close_code(self) -> int | None:
        """The code of the close, 1006 for a loss without a word; ``None`` while open."""
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None:
            return received.code
        if self._inbox.protocol_error is not None and sent is not None:
            return sent.code
        return None if self._lost is None else CloseCode.ABNORMAL_CLOSURE.value

    @property
    def close_reason(self) -> str | None:
        """What was given as the reason of the close, perhaps nothing; ``None`` while open."""
        if self._protocol.close_rcvd is not None:
            return self._protocol.close_rcvd.reason
        return self._inbox.protocol_error or self._lost

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message, text as text and bytes as binary; waits while much is unsent.

        Raises:
            RealtimeDisconnectedError: The connection is closed.
            InvalidRequestError: It is not a message.
        """
        await checkpoint_if_cancelled()
        if self._outbox.is_full:
            await self._outbox.drain()
        if not self.is_open or self._outbox.failure is not None:
            raise await self._closed_error()
        self._write_message(message)

    def _write_message(self, message: str | bytes | bytearray | memoryview) -> None:
        payload: bytes | bytearray
        if isinstance(message, str):
            first, send, payload = TEXT, self._protocol.send_text, _to_utf8(message)
        elif isinstance(message, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            # A view may have items of more than a byte, or gaps.
            payload = bytes(message) if isinstance(message, memoryview) else message
            first, send = BINARY, self._protocol.send_binary
        else:
            raise InvalidRequestError(f"{type(message).__name__} is neither text nor bytes")
        if self._protocol.extensions:
            send(payload)
            self._write_protocol_output()
        else:
            self._outbox.write(encode_frame(first, payload))

    async def recv(self) -> str | bytes | bytearray:
        """Receive the next message; a long one may be a `bytearray` of the caller's own.

        Raises:
            RealtimeDisconnectedError: The connection is closed and no message is left.
            InvalidResponseError: The other side broke the protocol, or the message is too long.
            InvalidRequestError: Another task is receiving.
        """
        if self._receiving:
            raise InvalidRequestError("another task is receiving from this connection already")
        self._receiving = True
        try:
            if self._inbox:
                await checkpoint_if_cancelled()
                if self._time_slice.is_over:
                    await self._time_slice.end()
            while not self._inbox:
                if not self.is_open:
                    raise await self._closed_error()
                await self._read_once()
        finally:
            self._receiving = False
        return self._inbox.take()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, waiting up to `CLOSE_TIMEOUT` for the other side to agree.

        May be called more than once, and while another task receives, which then gets a
        `RealtimeDisconnectedError`. A close that is cancelled closes at once.

        Raises:
            InvalidRequestError: The code may not be sent, or the reason has more than 123 bytes.
        """
        if self.is_open:
            try:
                self._protocol.send_close(code, reason)
            except (ProtocolError, TypeError, AttributeError, UnicodeError) as error:
                raise InvalidRequestError(f"not a code and reason of a close: {error}") from error
            self._write_protocol_output()
            self._outbox.flush()  # what runs the outbox may have been cancelled with the caller
        try:
            with anyio.move_on_after(CLOSE_TIMEOUT):
                while self._can_receive():
                    await self._read_once()
        finally:
            self.drop("the other side did not answer the close")
        for task in self._background:
            await task.wait()

    def drop(self, reason: str = "this side gave it up") -> None:
        """Close at once, without a further word."""
        self._outbox.flush()
        self._connection_lost(reason)

    def abandon(self, *, _warn: Callable[..., None] = warnings.warn) -> None:
        """Warn that an open connection was not closed, and close it without waiting.

        For finalizers: it may be called on any thread.
        """
        if self.is_open and self._background:
            _warn(
                "a WebSocket was not closed: open it by 'async with', or call close()",
                ResourceWarning,
                source=self,
            )
            self._background[0].cancel_soon()

    def discard(self) -> None:
        """Give up a connection whose event loop is gone, or another process's."""
        if self._lost is None:
            self._lost = "its event loop has ended, or belongs to another process"
            self._stream.close_without_loop()

    def start(self) -> None:
        """Start the background tasks, which end with the connection or with the event loop."""
        # No task group: its tasks would be among those that `asyncio.run` cancels.
        self._background = [spawn(self._write, grace=0), spawn(self._read_while_idle, grace=0)]
        if self._ping_interval is not None:
            work = partial(self._keep_alive, self._ping_interval, self._ping_timeout)
            self._background.append(spawn(work, grace=0))

    async def _write(self) -> None:
        """Write what was not written at once, to the end of the connection."""
        try:
            await self._outbox.run()
        finally:
            if self.is_open:
                self._protocol.send_close(CloseCode.GOING_AWAY)
                self._write_protocol_output()
            self.drop("it was abandoned, or its event loop ended")
            for task in self._background:
                task.cancel()

    async def _read_while_idle(self) -> None:
        """Read while no task receives, so that pings and closes are heard."""
        while True:
            await anyio.sleep(IDLE_READ_INTERVAL)
            while not self._receiving and self._can_receive() and self._inbox.size < RECEIVE_BUFFER:
                await self._read_once()

    async def _keep_alive(self, interval: float, timeout: float | None) -> None:
        """Ask for a sign of life when there has been none, and give up when none comes."""
        while True:
            before = self._snapshot()
            await anyio.sleep(interval)
            if self._snapshot().heard != before.heard or not self.is_open:
                continue
            self._protocol.send_ping(b"")
            self._write_protocol_output()
            asked = self._snapshot()
            self._activity = anyio.Event()
            with anyio.move_on_after(timeout):
                await self._activity.wait()
            if self._snapshot().is_unresponsive_since(asked):
                self._connection_lost(
                    f"the other side did not answer a ping within {timeout:g} seconds"
                )

    def _snapshot(self) -> _ActivitySnapshot:
        return _ActivitySnapshot(
            self._reads, self._outbox.taken, self._outbox.size, is_heard=self._reading
        )

    def _can_receive(self) -> bool:
        return self._lost is None and self._protocol.close_rcvd is None

    async def _read_once(self) -> None:
        """Read what has arrived, or wait for it; leave it to another task that is at it."""
        if self._reading:
            if self._read is None:
                self._read = anyio.Event()
            await self._read.wait()
            return
        self._reading = True
        try:
            if self._read_available():
                await checkpoint()
                self._outbox.write_through = True
            else:
                await self._stream.wait_receivable()
                self._outbox.write_through = True
                self._read_available()
        finally:
            self._reading = False
            if self._read is not None:
                self._read.set()
                self._read = None

    def _read_available(self) -> bool:
        """Take in what has arrived, for a slice of time, and not beyond the end of a message.

        Returns:
            Whether there was anything, be it the end.
        """
        time_slice = TimeSlice()
        has_read = False
        while self._read_nowait(time_slice):
            has_read = True
            if self._inbox or time_slice.is_over or not self._can_receive():
                break
        return has_read

    def _read_nowait(self, time_slice: TimeSlice) -> bool:
        """Take in what arrived before, or else arrives now; whether anything has, be it the end."""
        if not self._inbox.is_sorted:
            self._sort(time_slice)
            return True
        room = self._inbox.buffer
        received: bytes | int | None
        try:
            if room is None:
                received = self._stream.receive_nowait(READ)
            else:
                received = self._stream.receive_into_nowait(room)
        except OSError as error:
            self._connection_lost(error.strerror or str(error))
            return True
        if received:
            self._feed(received)
            self._sort(time_slice)
        elif received is not None:
            self._connection_lost("the other side hung up")
        return received is not None

    def _feed(self, received: bytes | int) -> None:
        """Take in bytes, or so many that are in the room for them, to be sorted."""
        self._reads += 1
        if self._activity is not None:
            self._activity.set()
            self._activity = None
        if isinstance(received, int):
            self._inbox.fill(received)
        else:
            self._inbox.feed(received)

    def _sort(self, time_slice: TimeSlice) -> None:
        self._inbox.sort(time_slice)
        if self._inbox.has_output:
            self._inbox.has_output = False
            self._send_control_frames()

    def _send_control_frames(self) -> None:
        """Send what the protocol answers, but not for ever to one who asks and does not listen."""
        outbox = self._outbox
        if outbox.taken != self._taken:
            self._taken, self._unacknowledged_pongs = outbox.taken, 0
        if (
            self._unacknowledged_pongs > MAX_UNACKNOWLEDGED_PONGS
            and self._protocol.state is State.OPEN
        ):
            self._protocol.data_to_send()  # is forgotten: only the last ping needs an answer
            return
        self._unacknowledged_pongs -= outbox.size
        self._write_protocol_output()
        self._unacknowledged_pongs += outbox.size

    def _write_protocol_output(self) -> None:
        """Send what the protocol wants to be sent; its wish to hang up is left to `close`."""
        if frames := b"".join(self._protocol.data_to_send()):
            self._outbox.write(frames)

    def _connection_lost(self, reason: str) -> None:
        """The end of the connection, whatever came before; only the first reason counts."""
        if self._lost is None:
            self._lost = reason
            self._protocol.receive_eof()
            self._outbox.close()
            self._stream.close()

    async def _closed_error(self) -> FalClientError:
        """Why nothing more can be sent or received."""
        if self._outbox.failure is not None:
            await self._drain_after_write_error(self._outbox.failure)
        if self._inbox.protocol_error is not None:
            return InvalidResponseError(
                f"the other side broke the protocol: {self._inbox.protocol_error}"
            )
        sent = self._protocol.close_sent  # perhaps not answered yet
        code = self.close_code or (sent.code if sent else CloseCode.ABNORMAL_CLOSURE.value)
        return RealtimeDisconnectedError(code, self.close_reason or "")

    async def _drain_after_write_error(self, failure: OSError) -> None:
        """Writing failed: what the other side said before it left explains it best."""
        with anyio.move_on_after(CLOSE_TIMEOUT):
            while self.is_open and self._inbox.size < RECEIVE_BUFFER and self._read_available():
                await checkpoint()
        self._connection_lost(failure.strerror or str(failure))


def _to_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"not text that can be sent: {error.reason}") from error
