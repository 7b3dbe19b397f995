"""A WebSocket that echoes frames."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.utils import accept_key

try:
    from websockets.speedups import apply_mask
except ImportError:  # there is no wheel with the C extension for this platform
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Echo", "accept"]

_SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-accept: %s\r\n%s\r\n"
)
_DEFLATE: Final = b"sec-websocket-extensions: permessage-deflate\r\n"
_FIN, _RSV1 = 0x80, 0x40


def accept(headers: Mapping[str, str], *, deflate: bool) -> tuple[bytes, Echo]:
    """Respond to a handshake. Compress if asked to and the client offers it."""
    deflate = deflate and "permessage-deflate" in headers.get("sec-websocket-extensions", "")
    key = accept_key(headers["sec-websocket-key"]).encode()
    return _SWITCH % (key, _DEFLATE if deflate else b""), Echo(deflate=deflate)


class Echo:
    """Echoes data and close frames, and responds to pings. The clients fragment no frames.

    Attributes:
        closed: Whether the client has said goodbye, so that the connection is to be closed.
    """

    def __init__(self, *, deflate: bool) -> None:
        self.closed = False
        self._buffer = bytearray()
        self._deflate = PerMessageDeflate(False, False, 15, 15) if deflate else None

    def receive(self, data: bytes) -> bytes:
        """Receive bytes, and return the bytes to send."""
        self._buffer += data
        return b"".join(self._respond(head, payload) for head, payload in self._frames())

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        buffer, at = self._buffer, 0
        while (frame := _measure(buffer, at)) is not None:
            start, stop = frame
            payload = apply_mask(bytes(buffer[start:stop]), bytes(buffer[start - 4 : start]))
            yield buffer[at], payload
            at = stop
        del buffer[:at]

    def _respond(self, head: int, payload: bytes) -> bytes:
        opcode = Opcode(head & 0x0F)
        self.closed |= opcode is Opcode.CLOSE
        if opcode is Opcode.PONG:
            return b""
        if opcode is Opcode.PING:
            return _frame(_FIN | Opcode.PONG, payload)
        if self._deflate is None or opcode is Opcode.CLOSE:
            return _frame(head, payload)
        plain = self._deflate.decode(Frame(opcode, payload, rsv1=bool(head & _RSV1)))
        packed = self._deflate.encode(Frame(opcode, plain.data))
        return _frame(_FIN | (_RSV1 if packed.rsv1 else 0) | opcode, bytes(packed.data))


def _measure(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Return start and end of a frame's payload, or ``None`` if the frame is incomplete.

    What clients send is masked: the four bytes before the payload are the mask.
    """
    if len(buffer) < at + 2:
        return None
    length, start = buffer[at + 1] & 0x7F, at + 6
    if length >= 126:
        extended = 2 if length == 126 else 8
        start += extended
        length = int.from_bytes(buffer[at + 2 : at + 2 + extended], "big")
    stop = start + length
    return (start, stop) if len(buffer) >= max(start, stop) else None


def _frame(head: int, payload: bytes) -> bytes:
    if len(payload) < 126:
        return bytes((head, len(payload))) + payload
    if len(payload) < 65536:
        return struct.pack("!BBH", head, 126, len(payload)) + payload
    return struct.pack("!BBQ", head, 127, len(payload)) + payload
