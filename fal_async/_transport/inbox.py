"""The receiving half of a WebSocket: bytes in, whole messages out. No I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State

from fal_async._transport.frames import BINARY, TEXT, FrameCutter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.client import ClientProtocol

    from fal_async._transport.frames import Piece
    from fal_async._transport.time_slices import TimeSlice

__all__ = ["RECEIVE_BUFFER", "Inbox"]

#: How much is held for a receiver that does not come before no more is taken in, in bytes.
RECEIVE_BUFFER: Final = 1024 * 1024
#: What a message takes up beside its content, in bytes; so that empty ones have a bound as well.
OVERHEAD: Final = 64

_DATA: Final = {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}


class Inbox:
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
        self._cutter = FrameCutter(max_size)
        self._messages: deque[str | bytes | bytearray] = deque()
        self._fragments = bytearray()
        self._is_text = False
        self._pieces: Iterator[Piece] = iter(())
        self.is_sorted = True
        self.size = 0
        self.violation: str | None = None
        self.has_judged = False

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def room(self) -> memoryview | None:
        """Where the next bytes are best received to; ``None`` for nowhere: they are fed."""
        return self._cutter.room

    def take(self) -> str | bytes | bytearray:
        """The oldest message."""
        message = self._messages.popleft()
        self.size -= len(message) + OVERHEAD
        return message

    def fill(self, size: int) -> None:
        """Take in what has been received to the `room`: a part of one frame, or its end."""
        for first, payload in self._cutter.fill(size):
            self._sort(first, payload)

    def feed(self, received: bytes) -> None:
        """Add what has arrived, to be sorted."""
        self._pieces = self._cutter.feed(received)
        self.is_sorted = False

    def sort(self, time_slice: TimeSlice) -> None:
        """Make messages of what has arrived, for a slice of time and up to `RECEIVE_BUFFER`."""
        for first, payload in self._pieces:
            self._sort(first, payload)
            if time_slice.is_over or self.size >= RECEIVE_BUFFER:
                return
        self.is_sorted = True

    def _sort(self, first: int, payload: bytes | bytearray) -> None:
        if first == BINARY:
            self._add(payload)
        elif first == TEXT:
            self._add_text(payload)
        else:
            self._judge(payload)

    def _judge(self, frames: bytes | bytearray) -> None:
        """Let the protocol have its say about what is not a whole message."""
        self.has_judged = True
        self._protocol.receive_data(frames)
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in _DATA:
                self._add_fragment(event)
        failure = self._protocol.parser_exc
        if isinstance(failure, PayloadTooBig):
            self.violation = f"a message has more than {self._max_size} bytes"
        elif failure is not None:
            self.violation = str(failure)

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
                self.violation = f"a text message is not UTF-8: {error.reason}"
                self.has_judged = True
                self._protocol.fail(CloseCode.INVALID_DATA, error.reason)

    def _add(self, message: str | bytes | bytearray) -> None:
        # What comes after a close, from either side, is not for anybody.
        if self._protocol.state is State.OPEN:
            self._messages.append(message)
            self.size += len(message) + OVERHEAD
