"""The frames of RFC 6455 that carry whole messages, in the fewest steps. No I/O.

Nearly all traffic of a session is unfragmented data frames, and websockets' parser spends three
times as long on one as is needed. So these are handled here, and every other frame (control
frames, fragments, compressed ones, wrong ones) is cut out whole for that parser to judge.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias

try:
    from websockets.speedups import apply_mask
except ImportError:  # there is no wheel with the C extension for this platform
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BINARY", "LONG", "TEXT", "ChunkedFrame", "FrameReader", "Piece", "encode_frame"]

#: Longer messages are masked part by part, when they are written.
LONG: Final = 262144
#: Incomplete frames with no more bytes than these are put together by copying.
SHORT: Final = 4096
#: How much room is made at once for the payload of a frame, whatever its length is said to be.
MAX_BUFFER: Final = 16 * 1024 * 1024

#: `TEXT` or `BINARY` and a message, or 0 and bytes for the parser.
Piece: TypeAlias = tuple[int, bytes | bytearray]

#: The first byte of a frame that is a whole message: the FIN bit and the opcode.
TEXT: Final = 0x81
BINARY: Final = 0x82

_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_short = Struct("!BB")
_medium = Struct("!BBH")
_long = Struct("!BBQ")


def encode_frame(first: int, payload: bytes | bytearray) -> bytes | ChunkedFrame:
    """A message as one masked frame, or as one that is made while it is written.

    Args:
        first: `TEXT` or `BINARY`.
        payload: The message.
    """
    if len(payload) > LONG:
        return ChunkedFrame(first, bytes(payload))
    mask = _mask()
    return b"".join((_head(first, len(payload)), mask, apply_mask(payload, mask)))


class ChunkedFrame:
    """A long message as one masked frame, of which each part is made when it is to be written.

    So a long message is not held several times over, and what is masked is still in the cache when
    it is written.

    Args:
        first: `TEXT` or `BINARY`.
        payload: The message, which must not change any more.
    """

    def __init__(self, first: int, payload: bytes) -> None:
        self._mask = _mask()
        self._next = _head(first, len(payload)) + self._mask
        self._payload = memoryview(payload)

    def __len__(self) -> int:
        return len(self._next) + len(self._payload)

    def take(self, size: int) -> bytes:
        """The next part: so many bytes, or a few less."""
        size = (size - len(self._next)) & ~3  # for the next part to begin with the mask's beginning
        head, self._next = self._next, b""
        part, self._payload = self._payload[:size], self._payload[size:]
        return head + apply_mask(part, self._mask)


def _head(first: int, size: int) -> bytes:
    if size < _LENGTH_16:
        return _short.pack(first, _MASKED | size)
    if size <= 0xFFFF:
        return _medium.pack(first, _MASKED | _LENGTH_16, size)
    return _long.pack(first, _MASKED | _LENGTH_64, size)


def _mask() -> bytes:
    return os.urandom(4)  # unpredictable, as RFC 6455, section 5.3 wants it


class FrameReader:
    """Cuts what a server sends into frames.

    Args:
        max_size: How many bytes a frame may have; ``None`` for any number. What is longer is not
            waited for: from there on all comes out as it arrives, for the parser to refuse.
    """

    def __init__(self, max_size: int | None) -> None:
        self._max_size = max_size
        self._head = b""  # of a frame whose payload is not here, or all of a short one
        self._payload: list[bytearray] = []
        self._free = 0  # at the end of the last part of the payload
        self._missing = 0
        self._fragmented = False
        self._given_up = False

    @property
    def buffer(self) -> memoryview | None:
        """Where the next bytes can be received to without another copy; ``None`` for nowhere.

        How many were is told to `buffer_updated`. All that is not received to there goes to `feed`.
        """
        return self._make_room() if self._missing else None

    def _make_room(self) -> memoryview:
        if not self._free:
            self._free = min(self._missing, MAX_BUFFER)
            self._payload.append(bytearray(self._free))
        return memoryview(self._payload[-1])[-self._free :]

    def buffer_updated(self, size: int) -> list[Piece]:
        """So many bytes have been received to the `buffer`; gives what `feed` gives."""
        self._free -= size
        self._missing -= size
        if self._missing:
            return []
        parts, self._payload = self._payload, []
        head, self._head = self._head, b""
        return [self._piece(head, parts[0] if len(parts) == 1 else b"".join(parts))]

    def feed(self, received: bytes) -> Iterator[Piece]:
        """Cut what has arrived as the frames are asked for, all of them before anything is added.

        Yields:
            Pairs of `TEXT` or `BINARY` with a whole message, and of 0 with bytes for the parser.
        """
        while self._missing and received:
            buffer = self._make_room()
            part = received[: len(buffer)]
            buffer[: len(part)] = part
            yield from self.buffer_updated(len(part))
            received = received[len(part) :]
        if received:
            if self._head:
                received, self._head = self._head + received, b""
            yield from self._cut(received)

    def _cut(self, received: bytes) -> Iterator[Piece]:
        start, end = 0, len(received)
        while start < end and not self._given_up:
            header = _read_header(received, start, end)
            if header is None:
                break
            begin, size = header
            if size < 0 or (self._max_size is not None and size > self._max_size):
                self._given_up = True
                break
            stop = begin + size
            if stop > end:
                if size > SHORT:
                    self._head, self._missing = received[start:begin], size
                    yield from self.feed(received[begin:])
                    return
                break
            yield self._piece(received[start:begin], received[begin:stop])
            start = stop
        if self._given_up:
            yield 0, received[start:]
        else:
            self._head = received[start:]

    def _piece(self, head: bytes, payload: bytes | bytearray) -> Piece:
        first = head[0]
        if first in {TEXT, BINARY} and not self._fragmented:
            return first, payload
        opcode, is_last = first & 0x0F, first & 0x80
        if opcode <= 2:
            self._fragmented = not is_last
        return 0, head + payload


def _read_header(received: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where a frame's payload begins, and its size; a negative size for what no server may send."""
    if end - start < 2:
        return None
    size = received[start + 1]
    if size < _LENGTH_16:
        return start + 2, size
    if size == _LENGTH_16:
        return (start + 4, _medium.unpack_from(received, start)[2]) if end - start >= 4 else None
    if size == _LENGTH_64:
        return (start + 10, _long.unpack_from(received, start)[2]) if end - start >= 10 else None
    return start, -1
