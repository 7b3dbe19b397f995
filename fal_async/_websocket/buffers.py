"""Receive buffer and send buffer of a WebSocket."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, cast

import anyio
from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from fal_async._websocket.frames import CHUNK_SIZE, FRAMES_AT_ONCE, TEXT, ChunkedFrame, FrameReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.client import ClientProtocol

    from fal_async._net.sockets import SocketStream
    from fal_async._net.time_slice import TimeSlice
    from fal_async._websocket.frames import FrameContent

__all__ = ["OPEN", "RECEIVE_LIMIT", "ReceiveBuffer", "SendBuffer"]

#: The state in which messages are sent and received. Looking it up in its enum takes two calls.
OPEN: Final = State.OPEN
#: The size of unread messages at which reading stops, in bytes.
RECEIVE_LIMIT: Final = 1024 * 1024
#: The memory that a message takes besides its content, in bytes. It limits empty messages too.
MESSAGE_OVERHEAD: Final = 64

#: The largest write, in bytes. Each write costs a system call, and joining small parts a copy.
MAX_WRITE: Final = CHUNK_SIZE
#: The number of writes in a row before other tasks run.
MAX_WRITES_PER_TURN: Final = 4
#: The size of unsent data above which senders wait, in bytes.
HIGH_WATER: Final = 65536

_DATA_OPCODES: Final = {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}


class ReceiveBuffer:
    """Messages that were received and not yet read.

    Unfragmented messages bypass the protocol. All other frames go through it, and what it wants
    to send in return (a pong, a close frame) stays there until the connection sends it.

    Args:
        protocol: The protocol of the connection, in state OPEN.
        max_size: The maximum size of a message, in bytes; ``None`` for no limit.

    Attributes:
        messages: The messages, the oldest first. Remove them with `pop`.
        size: The approximate memory that the messages take, in bytes.
        buffer: The buffer into which to receive the next bytes; ``None`` if they go to `feed`.
        is_parsed: Whether all received bytes are parsed. Until then, nothing may be added.
        protocol_error: The violation of the protocol by the server, or ``None``.
        has_output: Whether the protocol may have data to send; reset by the connection.
    """

    def __init__(self, protocol: ClientProtocol, max_size: int | None) -> None:
        self._protocol = protocol
        self._max_size = max_size
        self._reader = FrameReader(max_size)
        self._frames: Iterator[FrameContent] = iter(())
        self.messages: deque[str | bytes | memoryview] = deque()
        self._fragments = bytearray()
        self._is_text = False
        self.size = 0
        self.buffer: memoryview | None = None
        self.is_parsed = True
        self.protocol_error: str | None = None
        self.has_output = False

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def is_full(self) -> bool:
        """True if to stop reading until messages are removed."""
        return self.size >= RECEIVE_LIMIT

    def pop(self) -> str | bytes | memoryview:
        """Remove and return the oldest message."""
        message = self.messages.popleft()
        self.size -= len(message) + MESSAGE_OVERHEAD
        return message

    def reuse(self, message: memoryview) -> None:
        """Use the memory of a message, which nobody reads any more, for the next long one."""
        self._reader.reuse(message)

    def buffer_updated(self, size: int) -> None:
        """Process ``size`` bytes that were received into `buffer`."""
        for content in self._reader.buffer_updated(size):
            self._process(content)
        self.buffer = self._reader.buffer

    def feed(self, received: bytes) -> None:
        """Add received bytes, for `parse`."""
        self._frames = self._reader.feed(received)
        self.is_parsed = False

    def parse(self, time_slice: TimeSlice) -> None:
        """Parse received bytes until the slice of time is over or `RECEIVE_LIMIT` is reached."""
        for content in self._frames:
            self._process(content)
            # Fewer binary messages take little time. They are the last, or others follow.
            is_short = isinstance(content, list) and len(content) < FRAMES_AT_ONCE
            if self.size >= RECEIVE_LIMIT or (not is_short and time_slice.is_over):
                return
        self.is_parsed = True
        self.buffer = self._reader.buffer

    def _process(self, frames: FrameContent) -> None:
        if isinstance(frames, list):
            # RFC 6455, section 1.4: messages after a close frame, sent or received, are discarded.
            if self._protocol.state is OPEN:
                self.messages.extend(frames)
                self.size += sum(map(len, frames)) + MESSAGE_OVERHEAD * len(frames)
            return
        kind, content = frames
        if kind == TEXT:
            self._append_text(content)
            return
        self.has_output = True
        self._protocol.receive_data(bytes(content))
        for event in self._protocol.events_received():
            if not isinstance(event, Frame) or event.opcode not in _DATA_OPCODES:
                continue
            if event.opcode is not Opcode.CONT:
                self._is_text = event.opcode is Opcode.TEXT
            self._fragments += event.data
            if event.fin:
                append = self._append_text if self._is_text else self._append
                append(bytes(self._fragments))
                self._fragments.clear()
        error = self._protocol.parser_exc
        if isinstance(error, PayloadTooBig):
            self.protocol_error = f"a message has more than {self._max_size} bytes"
        elif error is not None:
            self.protocol_error = str(error)

    def _append_text(self, payload: bytes | memoryview) -> None:
        try:
            self._append(str(payload, "utf-8"))
        except UnicodeDecodeError as error:
            if self._protocol.state is OPEN:
                self.protocol_error = f"a text message is not valid UTF-8: {error.reason}"
                self.has_output = True
                self._protocol.fail(CloseCode.INVALID_DATA, error.reason)

    def _append(self, message: str | bytes | memoryview) -> None:
        if self._protocol.state is OPEN:  # as above
            self.messages.append(message)
            self.size += len(message) + MESSAGE_OVERHEAD


class SendBuffer:
    """Frames that wait until the socket accepts them.

    Each frame is sent as a whole, even if the task that wrote it is cancelled. The first write
    after an iteration of the event loop goes to the socket at once, which gives the lowest latency
    to a request. Later writes are joined until the event loop iterates again.

    Attributes:
        size: The number of unsent bytes.
        sent: The number of bytes that the socket has accepted so far.
        is_open: Whether messages may be written. It ends with a close frame or an error.
        error: The error that ended writing, or ``None``.
        write_through: Whether the next write goes to the socket at once.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._parts: deque[bytes | memoryview | ChunkedFrame] = deque()
        self._drained: anyio.Event | None = None
        self._wakeup: anyio.Event | None = None
        self._closed = False
        self.is_open = True
        self.size = 0
        self.sent = 0
        self.error: OSError | None = None
        self.write_through = True

    def write(self, frames: bytes | ChunkedFrame) -> None:
        """Add whole frames; they are discarded when the buffer is closed."""
        if self._closed:
            return
        self.size += len(frames)
        if not self.write_through:
            self._parts.append(frames)
        else:
            self.write_through = False
            if self._parts or isinstance(frames, ChunkedFrame):
                self._parts.append(frames)
                self.flush()
            else:
                self._send(frames)
        if self._wakeup is not None and self._parts:
            self._wakeup.set()
            self._wakeup = None

    def flush(self) -> None:
        """Write without waiting as much as the socket accepts, in a limited number of writes."""
        for _ in range(MAX_WRITES_PER_TURN):
            if not self._parts or not self._send(self._join_parts()):
                break
        if self._drained is not None and self.size <= HIGH_WATER:
            self._drained.set()
            self._drained = None
        if self._parts and self._wakeup is not None:
            self._wakeup.set()
            self._wakeup = None

    def _send(self, chunk: bytes | memoryview) -> int:
        """Write a chunk without waiting, and keep the rest; return the number of sent bytes."""
        size = len(chunk)
        try:
            sent = self._stream.send_nowait(
                chunk if size <= MAX_WRITE else memoryview(chunk)[:MAX_WRITE]
            )
        except OSError as error:
            self.error = error
            self.close()
            return 0
        self.size -= sent
        self.sent += sent
        if sent < size:
            self._parts.appendleft(memoryview(chunk)[sent:])
        return sent

    def _join_parts(self) -> bytes | memoryview:
        """Remove the first part, joined with the small parts that follow."""
        first = self._parts.popleft()
        if isinstance(first, ChunkedFrame):
            chunk = first.read(MAX_WRITE)
            if first:
                self._parts.appendleft(first)
                return chunk
            first = chunk
        # Only the first part is ever incomplete, and complete frames in chunks are longer.
        rest = cast("deque[bytes]", self._parts)
        if not rest or len(first) >= MAX_WRITE:
            return first
        if self.size <= MAX_WRITE:
            parts = [first, *rest]
            rest.clear()
            return b"".join(parts)
        parts, size = [first], len(first)
        while rest and (size := size + len(rest[0])) <= MAX_WRITE:
            parts.append(rest.popleft())
        return b"".join(parts)

    async def drain(self) -> None:
        """Wait until at most `HIGH_WATER` bytes are unsent, or the buffer is closed."""
        while self.size > HIGH_WATER and not self._closed:
            if self._drained is None:
                self._drained = anyio.Event()
            await self._drained.wait()

    async def run(self) -> None:
        """Write frames that could not be written at once, until the buffer is closed."""
        while not self._closed:
            self.flush()
            self.write_through = True
            if self._parts:
                await self._stream.wait_sendable()
            else:
                self._wakeup = anyio.Event()
                await self._wakeup.wait()

    def close(self) -> None:
        """Discard the unsent frames, and wake up all waiting tasks."""
        self._closed = True
        self.is_open = False
        self._parts.clear()
        self.size = 0
        for event in (self._drained, self._wakeup):
            if event is not None:
                event.set()
        self._drained = self._wakeup = None
