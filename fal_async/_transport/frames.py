"""The frames of RFC 6455 that carry whole messages, in the fewest steps. No I/O.

Nearly all traffic of a session is unfragmented data frames, and websockets' parser spends three
times as long on one as is needed. So these are handled here, and every other frame (control
frames, fragments, compressed ones, wrong ones) is cut out whole for that parser to judge.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # there is no wheel with the C extension for this platform
    from websockets.utils import apply_mask

__all__ = ["BINARY", "TEXT", "FrameCutter", "encode_frame"]

#: The first byte of a frame that is a whole message: the FIN bit and the opcode.
TEXT: Final = 0x81
BINARY: Final = 0x82

_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
_short = Struct("!BB")
_medium = Struct("!BBH")
_long = Struct("!BBQ")


def encode_frame(first: int, payload: bytes | bytearray | memoryview) -> bytes:
    """A message as one masked frame.

    Args:
        first: `TEXT` or `BINARY`.
        payload: The message.
    """
    size = len(payload)
    if size < _LENGTH_16:
        head = _short.pack(first, _MASKED | size)
    elif size <= 0xFFFF:
        head = _medium.pack(first, _MASKED | _LENGTH_16, size)
    else:
        head = _long.pack(first, _MASKED | _LENGTH_64, size)
    mask = os.urandom(4)  # unpredictable, as RFC 6455, section 5.3 wants it
    return b"".join((head, mask, apply_mask(payload, mask)))


class FrameCutter:
    """Cuts what a server sends into frames.

    Args:
        max_size: How many bytes a frame may have; ``None`` for any number. What is longer is not
            waited for: from there on all comes out as it arrives, for the parser to refuse.
    """

    def __init__(self, max_size: int | None) -> None:
        self._max_size = max_size
        self._head = b""  # of a frame whose length is not known yet, or whose payload is missing
        self._payload: list[bytes] = []
        self._missing = 0
        self._fragmented = False
        self._given_up = False

    @property
    def wanted(self) -> int:
        """How many bytes the current frame still needs, when that is known; else 0."""
        return self._missing

    def feed(self, received: bytes) -> list[tuple[int, bytes]]:
        """Take what has arrived, and give what is complete.

        Returns:
            Pairs of `TEXT` or `BINARY` with a whole message, and of 0 with bytes for the parser.
        """
        pieces: list[tuple[int, bytes]] = []
        if self._missing:
            if len(received) < self._missing:
                self._payload.append(received)
                self._missing -= len(received)
                return pieces
            end = self._missing
            self._payload.append(received[:end])
            pieces.append(self._piece(self._head, b"".join(self._payload)))
            self._payload, self._missing, self._head = [], 0, b""
            received = received[end:]
        elif self._head:
            received, self._head = self._head + received, b""
        self._cut(received, pieces)
        return pieces

    def _cut(self, received: bytes, pieces: list[tuple[int, bytes]]) -> None:
        start, end = 0, len(received)
        while start < end and not self._given_up:
            header = _read_header(received, start, end)
            if header is None:
                self._head = received[start:]
                return
            begin, size = header
            if size < 0 or (self._max_size is not None and size > self._max_size):
                self._given_up = True
                break
            stop = begin + size
            if stop > end:
                self._head = received[start:begin]
                self._payload.append(received[begin:])
                self._missing = stop - end
                return
            pieces.append(self._piece(received[start:begin], received[begin:stop]))
            start = stop
        if start < end:
            pieces.append((0, received[start:]))

    def _piece(self, head: bytes, payload: bytes) -> tuple[int, bytes]:
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
