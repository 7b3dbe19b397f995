"""Receive buffer and send buffer."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import anyio
from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from fal_async._websocket.frames import BINARY, LONG, TEXT, ChunkedFrame, FrameReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.client import ClientProtocol

    from fal_async._net.sockets import SocketStream
    from fal_async._net.time_slices import TimeSlice
    from fal_async._websocket.frames import Piece

__all__ = ["RECEIVE_BUFFER", "ReceiveBuffer", "SendBuffer"]


#: How much is held for a receiver that does not come before no more is taken in, in bytes.
RECEIVE_BUFFER: Final = 1024 * 1024


#: What a message takes up beside its content, in bytes; so that empty ones have a bound as well.
OVERHEAD: Final = 64


_DATA: Final = {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}


class ReceiveBuffer:
    """Messages that have arrived and have not been taken.

    Whole messages never reach the protocol; everything else does, and what it answers (a pong, a
    close) is left in it for the sending half.

    Args:
        protocol: The state machine of the connection, open.
        max_size: The longest message to accept, in bytes; ``None`` for any.

    Attributes:
        size: What the messages take up together, about, in bytes.
        is_sorted: Whether all that has arrived was made messages of. Until it is, nothing may be
            added.
        violation: What the other side did wrong, or ``None``.
        has_judged: Whether the protocol had a say, and may want to answer; taken back by whoever
            has sent the answer.
    """

    def __init__(self, protocol: ClientProtocol, max_size: int | None) -> None:
        self._protocol = protocol
        self._max_size = max_size
        self._cutter = FrameReader(max_size)
        self._messages: deque[str | bytes | bytearray] = deque()
        self._fragments = bytearray()
        self._is_text = False
        self._pieces: Iterator[Piece] = iter(())
        self.is_sorted = True
        self.size = 0
        self.protocol_error: str | None = None
        self.has_output = False

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def buffer(self) -> memoryview | None:
        """Where the next bytes are best received to; ``None`` for nowhere: they are fed."""
        return self._cutter.buffer

    def take(self) -> str | bytes | bytearray:
        """The oldest message."""
        message = self._messages.popleft()
        self.size -= len(message) + OVERHEAD
        return message

    def fill(self, size: int) -> None:
        """Take in what has been received to the `buffer`: a part of one frame, or its end."""
        for first, payload in self._cutter.buffer_updated(size):
            self._dispatch(first, payload)

    def feed(self, received: bytes) -> None:
        """Add what has arrived, to be sorted."""
        self._pieces = self._cutter.feed(received)
        self.is_sorted = False

    def sort(self, time_slice: TimeSlice) -> None:
        """Make messages of what has arrived, for a slice of time and up to `RECEIVE_BUFFER`."""
        for first, payload in self._pieces:
            self._dispatch(first, payload)
            if time_slice.is_over or self.size >= RECEIVE_BUFFER:
                return
        self.is_sorted = True

    def _dispatch(self, first: int, payload: bytes | bytearray) -> None:
        if first == BINARY:
            self._add(payload)
        elif first == TEXT:
            self._add_text(payload)
        else:
            self._feed_protocol(payload)

    def _feed_protocol(self, frames: bytes | bytearray) -> None:
        """Let the protocol have its say about what is not a whole message."""
        self.has_output = True
        self._protocol.receive_data(frames)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in _DATA:
                self._add_fragment(event)
        failure = self._protocol.parser_exc
        if isinstance(failure, PayloadTooBig):
            self.protocol_error = f"a message has more than {self._max_size} bytes"
        elif failure is not None:
            self.protocol_error = str(failure)

    def _add_fragment(self, fragment: Frame) -> None:
        if fragment.opcode is not Opcode.CONT:
            self._is_text = fragment.opcode is Opcode.TEXT
        self._fragments += fragment.data
        if fragment.fin:
            payload = bytes(self._fragments)
            self._fragments.clear()
            if self._is_text:
                self._add_text(payload)
            else:
                self._add(payload)

    def _add_text(self, payload: bytes | bytearray) -> None:
        try:
            self._add(payload.decode())
        except UnicodeDecodeError as error:
            if self._protocol.state is State.OPEN:
                self.protocol_error = f"a text message is not UTF-8: {error.reason}"
                self.has_output = True
                self._protocol.fail(CloseCode.INVALID_DATA, error.reason)

    def _add(self, message: str | bytes | bytearray) -> None:
        # What comes after a close, from either side, is not for anybody.
        if self._protocol.state is State.OPEN:
            self._messages.append(message)
            self.size += len(message) + OVERHEAD


#: How much is offered in one write, in bytes. Each write has its price, and so has each copy.
MAX_WRITE: Final = LONG


#: How many writes are made in a row before other tasks get their turn.
MAX_WRITES_PER_TURN: Final = 4


#: Above so many bytes that the network has not taken yet, whoever wants to send waits.
HIGH_WATER: Final = 65536


class SendBuffer:
    """What is put in here goes out whole, whatever becomes of the task that put it in.

    The first thing after a turn of the event loop is written at once, which is best for a message
    that is waited for. What follows before the loop turns again goes out together. Nothing here
    waits in the middle of a write, so there are no half frames to be left behind.

    Attributes:
        size: How many bytes wait.
        taken: How many bytes the network has taken so far.
        failure: Why nothing can be written any more, or ``None``.
        prompt: Whether the loop has turned since the last write.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._parts: deque[bytes | memoryview | ChunkedFrame] = deque()
        self._room: anyio.Event | None = None
        self._work: anyio.Event | None = None
        self._closed = False
        self.size = 0
        self.taken = 0
        self.failure: OSError | None = None
        self.write_through = True

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing more should be put in."""
        return self.size > HIGH_WATER

    def write(self, frames: bytes | ChunkedFrame) -> None:
        """Put whole frames in; nothing, once the outbox is closed."""
        if self._closed:
            return
        self._parts.append(frames)
        self.size += len(frames)
        if self.write_through:
            self.write_through = False
            self.flush()
        elif self._work is not None:
            self._work.set()
            self._work = None

    def flush(self) -> None:
        """Write what the network takes at once, up to a bound."""
        for _ in range(MAX_WRITES_PER_TURN):
            if not self._parts:
                break
            offered = self._next()
            try:
                sent = self._stream.send_nowait(
                    offered if len(offered) <= MAX_WRITE else memoryview(offered)[:MAX_WRITE]
                )
            except OSError as error:
                self.failure = error
                self.close()
                return
            self.size -= sent
            self.taken += sent
            if sent == len(offered):
                continue
            self._parts.appendleft(memoryview(offered)[sent:])
            if not sent:
                break
        if self._room is not None and not self.is_full:
            self._room.set()
            self._room = None
        if self._parts and self._work is not None:
            self._work.set()
            self._work = None

    def _next(self) -> bytes | memoryview:
        """The first part, joined by the small ones that follow."""
        first = self._pop()
        if not self._parts or len(first) >= MAX_WRITE:
            return first
        together, size = [first], len(first)
        while self._parts and size + len(self._parts[0]) <= MAX_WRITE:
            part = self._pop()
            together.append(part)
            size += len(part)
        return b"".join(together)

    def _pop(self) -> bytes | memoryview:
        part = self._parts.popleft()
        if not isinstance(part, ChunkedFrame):
            return part
        masked = part.take(MAX_WRITE)
        if part:
            self._parts.appendleft(part)
        return masked

    async def drain(self) -> None:
        """Wait until less than `HIGH_WATER` bytes wait, or nothing can be written any more."""
        while self.is_full and not self._closed:
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()

    async def run(self) -> None:
        """Write what could not be written at once; ends when the outbox is closed."""
        while not self._closed:
            self.flush()
            self.write_through = True
            if self._parts:
                await self._stream.wait_sendable()
            else:
                self._work = anyio.Event()
                await self._work.wait()

    def close(self) -> None:
        """Throw away what waits, and let everybody go who waits for it to be written."""
        self._closed = True
        self._parts.clear()
        self.size = 0
        for event in (self._room, self._work):
            if event is not None:
                event.set()
        self._room = self._work = None
