"""Fast path for the unfragmented data frames of RFC 6455, without I/O.

Nearly all traffic of a session consists of unfragmented data frames, and the parser of websockets
takes three times as long as necessary for each. This module decodes and encodes these frames
itself. It passes every other frame (control frames, fragments, compressed and invalid frames)
unchanged to that parser.
"""

from __future__ import annotations

import math
import os
from struct import Struct
from struct import error as StructError  # noqa: N812 -- the name of a class
from typing import TYPE_CHECKING, Final, TypeAlias, cast

try:
    from websockets.speedups import apply_mask
except ImportError:  # there is no wheel with the C extension for this platform
    from websockets.utils import apply_mask

from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BINARY",
    "CHUNK_SIZE",
    "FRAMES_AT_ONCE",
    "RAW",
    "TEXT",
    "ChunkedFrame",
    "FrameContent",
    "FrameReader",
    "encode_frame",
    "encode_message",
    "random_masks",
]

#: The first byte of a frame that is a whole message: the FIN bit and the opcode.
TEXT: Final = 0x81
BINARY: Final = 0x82
#: Marks frames for the parser of websockets.
RAW: Final = 0

#: The payloads of binary messages; or `TEXT` with the payload of a message; or `RAW` with bytes for
#: the parser.
FrameContent: TypeAlias = list[bytes | memoryview] | tuple[int, bytes | memoryview]

#: The maximum number of binary messages that are split off at once.
FRAMES_AT_ONCE: Final = 16
#: Longer messages are masked in chunks of this size, while they are written; in bytes.
CHUNK_SIZE: Final = 262144
#: Incomplete frames up to this size are completed by copying, in bytes.
MAX_COPIED: Final = 4096
#: Payloads from this size are views of the received bytes, unless these are longer than twice.
MIN_VIEW: Final = 16384
#: The largest buffer to allocate at once, whatever length a frame announces; in bytes.
MAX_BUFFER: Final = 16 * 1024 * 1024
#: The longest buffer to use for a shorter frame, as a multiple of its length.
MAX_WASTE: Final = 2

_MASKED: Final = 0x80
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127
#: The number of random bytes for masks that one system call returns.
_MASK_POOL: Final = 1024
_mask = Struct("4s")
_short = Struct("!BB4s")
_medium = Struct("!BBH4s")
_long = Struct("!BBQ4s")
_long_size = Struct("!Q")
#: The first two bytes of a message, with the size and without; and the next two.
_short_header = Struct("!HH")
_BINARY_7: Final = BINARY << 8
_BINARY_16: Final = BINARY << 8 | _LENGTH_16


def encode_message(message: object) -> tuple[int, bytes | bytearray]:
    """Return the first byte of the frame of a message, and its payload.

    Raises:
        InvalidRequestError: The message is neither valid text nor bytes.
    """
    if type(message) is bytes:  # the union below takes longer than the rest
        return BINARY, message
    if isinstance(message, bytes | bytearray):
        return BINARY, message
    if isinstance(message, str):
        try:
            return TEXT, message.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"text must be valid Unicode: {error.reason}") from error
    if isinstance(message, memoryview):  # which may have items of more than a byte, or gaps
        return BINARY, bytes(cast("memoryview", message))
    raise InvalidRequestError(f"a message must be text or bytes, got {type(message).__name__}")


def random_masks() -> Iterator[bytes]:
    """Yield a mask for each frame of a connection.

    RFC 6455, section 5.3 requires unpredictable masks. A system call for each would take longer
    than to mask a short message.
    """
    while True:
        for (mask,) in _mask.iter_unpack(os.urandom(_MASK_POOL)):
            yield mask


def encode_frame(first_byte: int, payload: bytes | bytearray, mask: bytes) -> bytes | ChunkedFrame:
    """Encode a message as one masked frame; a long message is masked later, while it is written.

    Args:
        first_byte: `TEXT` or `BINARY`.
        payload: The message.
        mask: Four bytes of `random_masks`.
    """
    size = len(payload)
    if size > CHUNK_SIZE:
        return ChunkedFrame(first_byte, bytes(payload), mask)
    if size < _LENGTH_16:
        header = _short.pack(first_byte, _MASKED | size, mask)
    elif size <= 0xFFFF:
        header = _medium.pack(first_byte, _MASKED | _LENGTH_16, size, mask)
    else:
        header = _long.pack(first_byte, _MASKED | _LENGTH_64, size, mask)
    return header + apply_mask(payload, mask)


class ChunkedFrame:
    """One masked frame of a long message, encoded chunk by chunk while it is written.

    So the message is not copied as a whole, and each chunk is still in the CPU cache when it is
    written.

    Args:
        first_byte: `TEXT` or `BINARY`.
        payload: The message, of more than 65,535 bytes, which must not change any more.
        mask: Four bytes of `random_masks`.
    """

    def __init__(self, first_byte: int, payload: bytes, mask: bytes) -> None:
        self._mask = mask
        self._header = _long.pack(first_byte, _MASKED | _LENGTH_64, len(payload), self._mask)
        self._payload = memoryview(payload)

    def __len__(self) -> int:
        return len(self._header) + len(self._payload)

    def read(self, size: int) -> bytes:
        """Encode the next chunk: up to ``size`` bytes, and at most 3 less unless it is the last."""
        size = (size - len(self._header)) & ~3  # so that each chunk starts with the mask's start
        header, self._header = self._header, b""
        chunk, self._payload = self._payload[:size], self._payload[size:]
        return header + apply_mask(chunk, self._mask)


class FrameReader:
    """Splits the bytes that a server sends into frames.

    Args:
        max_size: The maximum size of a frame, in bytes; ``None`` for no limit. A longer frame, and
            everything after it, goes to the parser as it arrives, and the parser rejects it.
    """

    def __init__(self, max_size: int | None) -> None:
        self._max_size: float = math.inf if max_size is None else max_size
        self._max_short_size = min(self._max_size, MIN_VIEW - 1)
        self._header: bytes = b""  # of a frame whose payload is incomplete, or all of a short frame
        self._payload: list[memoryview] = []
        self._free: int = 0  # at the end of the last buffer of the payload
        self._free_buffer: bytearray | None = None
        self._missing: int = 0
        self._is_fragmented = False
        self._failed = False

    @property
    def buffer(self) -> memoryview | None:
        """The buffer into which to receive the rest of a long frame; ``None`` without one.

        Report the number of bytes received to `buffer_updated`. All other bytes go to `feed`.
        """
        return self._get_buffer() if self._missing else None

    def _get_buffer(self) -> memoryview:
        if not self._free:
            self._free = min(self._missing, MAX_BUFFER)
            self._payload.append(memoryview(self._take_buffer(self._free))[: self._free])
        return self._payload[-1][-self._free :]

    def _take_buffer(self, size: int) -> bytearray:
        """Return the buffer of an earlier frame if it is long enough, and not far too long."""
        buffer, self._free_buffer = self._free_buffer, None
        if buffer is not None and size <= len(buffer) <= MAX_WASTE * size:
            return buffer
        return bytearray(size)

    def reuse(self, payload: memoryview) -> None:
        """Use the buffer of a payload, which nobody reads any more, for the next long frame."""
        if isinstance(payload.obj, bytearray):
            self._free_buffer = payload.obj

    def buffer_updated(self, size: int) -> list[FrameContent]:
        """Return the frame, if it is complete with the bytes received into `buffer`."""
        self._free -= size
        self._missing -= size
        if self._missing:
            return []
        buffers, self._payload = self._payload, []
        header, self._header = self._header, b""
        payload = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        return [self._make_content(header, payload)]

    def feed(self, received: bytes) -> Iterator[FrameContent]:
        """Split received bytes lazily. Exhaust the iterator before the next call.

        Binary messages that follow each other are yielded together, up to `FRAMES_AT_ONCE`.
        """
        return self._complete(memoryview(received)) if self._missing else self._split(received)

    def _complete(self, received: memoryview) -> Iterator[FrameContent]:
        """Complete a long frame, and split what follows it."""
        while self._missing and received:
            buffer = self._get_buffer()
            part = received[: len(buffer)]
            buffer[: len(part)] = part
            yield from self.buffer_updated(len(part))
            received = received[len(part) :]
        if received:
            yield from self._split(bytes(received))

    def _split(self, received: bytes) -> Iterator[FrameContent]:
        received, self._header = self._header + received, b""  # most headers are complete: no copy
        start, end = 0, 0 if self._failed else len(received)
        while start < end:
            messages, start = self._split_messages(received, start)
            if messages:
                yield messages
                continue
            try:
                size = received[start + 1]
                if size < _LENGTH_16:
                    payload_start = start + 2
                elif size == _LENGTH_16:
                    size, payload_start = received[start + 2] << 8 | received[start + 3], start + 4
                else:
                    size, payload_start = _parse_long_size(received, start), start + 10
            except (IndexError, StructError):  # the header is incomplete
                break
            if size > self._max_size or size < 0:
                self._failed = True
                break
            stop = payload_start + size
            if stop > end:
                if size > MAX_COPIED:
                    self._header, self._missing = received[start:payload_start], size
                    yield from self._complete(memoryview(received)[payload_start:])
                    return
                break
            payload = (
                received[payload_start:stop]
                if size < MIN_VIEW or 2 * size < end
                else memoryview(received)[payload_start:stop]
            )
            yield self._make_content(received[start:payload_start], payload)
            start = stop
        if self._failed:
            yield RAW, received[start:]
        else:
            self._header = received[start:]

    def _split_messages(self, received: bytes, start: int) -> tuple[list[bytes | memoryview], int]:
        """Return short binary messages, as most frames are, and where the next frame starts."""
        messages: list[bytes | memoryview] = []
        end = len(received)
        max_size = -1 if self._is_fragmented else self._max_short_size
        while start + 4 <= end and len(messages) < FRAMES_AT_ONCE:
            first_bytes, size = _short_header.unpack_from(received, start)
            if first_bytes == _BINARY_16:
                payload_start = start + 4
            elif _BINARY_7 <= first_bytes < _BINARY_16:
                size, payload_start = first_bytes & 0x7F, start + 2
            else:
                break
            stop = payload_start + size
            if stop > end or size > max_size:
                break
            messages.append(received[payload_start:stop])
            start = stop
        return messages, start

    def _make_content(self, header: bytes, payload: bytes | memoryview) -> FrameContent:
        first_byte = header[0]
        if not self._is_fragmented:
            if first_byte == BINARY:
                return [payload]
            if first_byte == TEXT:
                return TEXT, payload
        opcode, is_final = first_byte & 0x0F, first_byte & 0x80
        if opcode <= 2:  # a data frame
            self._is_fragmented = not is_final
        return RAW, header + payload


def _parse_long_size(received: bytes, start: int) -> int:
    """Return the size of a long frame; a negative one for frames that servers must not send."""
    if received[start + 1] != _LENGTH_64:
        return -1
    size: int = _long_size.unpack_from(received, start + 2)[0]
    return size
