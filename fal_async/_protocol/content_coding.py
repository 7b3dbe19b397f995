"""Content codings: decompression in bounded chunks.

A response may be compressed more than once, and 3 kB of it can expand to gigabytes. So each step
decompresses one chunk at most, at each layer, and only on request.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CHUNK_SIZE", "CodingError", "ContentDecoder", "content_codings"]

#: The maximum size of a chunk, in bytes.
CHUNK_SIZE: Final = 65536
#: The maximum number of codings of a response.
MAX_CODINGS: Final = 5
#: The maximum size of the data between two codings, in bytes: more than any output.
MAX_BETWEEN: Final = 1024 * 1024 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
_DECODABLE: Final = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
#: The other registered codings. Other names are mistakes of servers, such as the "aws-chunked" or
#: "utf-8" of files in object stores, and the content is not encoded.
_REGISTERED: Final = frozenset({
    "aes128gcm",
    "br",
    "compress",
    "dcb",
    "dcz",
    "exi",
    "pack200-gzip",
    "x-compress",
    "zstd",
})  # fmt: skip


class CodingError(Exception):
    """A response is truncated, damaged, or has an unsupported coding."""


def content_codings(header: str) -> tuple[str, ...]:
    """Parse a Content-Encoding header into the codings to decode, the last one first.

    Raises:
        CodingError: A coding is not supported, or there are too many of them.
    """
    names = [name.strip().lower() for name in header.split(",")]
    for name in names:
        if name in _REGISTERED:
            raise CodingError(f"the response is compressed with {name!r}, which is not supported")
    codings = tuple(_DECODABLE[name] for name in reversed(names) if name in _DECODABLE)
    if len(codings) > MAX_CODINGS:
        raise CodingError(f"the response is compressed more than {MAX_CODINGS} times")
    return codings


class ContentDecoder:
    """The decoder of one response.

    Args:
        codings: The codings to decode, in this order.
    """

    def __init__(self, codings: Sequence[str]) -> None:
        self._decoders: list[_Decoder] = [_DECODERS[name]() for name in codings] or [
            _IdentityDecoder()
        ]
        self._between = 0

    def feed(self, received: bytes) -> None:
        """Add bytes of the body, after `step` returned ``None``."""
        self._decoders[0].feed(received)

    def step(self) -> bytes | None:
        """Decompress one chunk, which may be empty; ``None`` if more of the body is needed.

        Raises:
            CodingError: The body is damaged.
        """
        last = len(self._decoders) - 1
        for number in range(last, -1, -1):
            decoder = self._decoders[number]
            if not decoder.has_input:
                continue
            chunk = decoder.decompress()
            if number == last:
                return chunk
            self._between += len(chunk)
            if self._between > MAX_BETWEEN:
                raise CodingError(f"the response expands to more than {MAX_BETWEEN} bytes")
            self._decoders[number + 1].feed(chunk)
            return b""
        return None

    def finish(self) -> None:
        """Check that the body is complete. An empty body is.

        Raises:
            CodingError: The body is truncated.
        """
        for decoder in self._decoders:
            decoder.finish()


class _Decoder(Protocol):
    """A decoder of one coding.

    Attributes:
        has_input: Whether `decompress` may return data.
    """

    has_input: bool

    def feed(self, received: bytes) -> None: ...

    def decompress(self) -> bytes: ...

    def finish(self) -> None: ...


class _Decompressor(Protocol):
    """The type of `zlib.decompressobj()`."""

    @property
    def eof(self) -> bool: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _IdentityDecoder:
    """The identity coding."""

    has_input = False

    def feed(self, received: bytes) -> None:
        self._input = received
        self.has_input = True

    def decompress(self) -> bytes:
        self.has_input = False
        return self._input

    def finish(self) -> None:
        """Accept any body."""


class _ZlibDecoder(ABC):
    """A coding that zlib decodes."""

    def __init__(self) -> None:
        self.has_input = False
        self._input = b""
        self._decompressor: _Decompressor | None = None

    def feed(self, received: bytes) -> None:
        self._input += received
        self.has_input = bool(self._input)

    def decompress(self) -> bytes:
        if self._decompressor is None:
            self._decompressor = self._start()
            if self._decompressor is None:
                self.has_input = False
                return b""
        decompressor = self._decompressor
        try:
            chunk = decompressor.decompress(self._input, CHUNK_SIZE)
        except zlib.error as error:
            raise CodingError(f"the compressed response is damaged: {error}") from error
        self._input = decompressor.unconsumed_tail
        if decompressor.eof:
            self._input, self._decompressor = decompressor.unused_data, None
            self._end()
        self.has_input = bool(self._input) or len(chunk) == CHUNK_SIZE
        return chunk

    def finish(self) -> None:
        if self._decompressor is not None or self._input:
            raise CodingError("the compressed response is truncated")

    @abstractmethod
    def _start(self) -> _Decompressor | None:
        """Return a decompressor for the input; ``None`` if more input is needed."""

    @abstractmethod
    def _end(self) -> None:
        """Handle the end of the compressed data."""


class _Gzip(_ZlibDecoder):
    """One or more members (RFC 1952, section 2.2), padded with zeros as the tools allow."""

    def __init__(self) -> None:
        super().__init__()
        self._members = 0

    def _start(self) -> _Decompressor | None:
        if self._members:
            self._input = self._input.lstrip(b"\0")
        if len(self._input) < len(_GZIP_MAGIC) and _GZIP_MAGIC.startswith(self._input):
            return None
        if not self._input.startswith(_GZIP_MAGIC):
            where = "is followed by something else" if self._members else "is not gzip"
            raise CodingError(f"the compressed response {where}")
        self._members += 1
        return zlib.decompressobj(zlib.MAX_WBITS | 16)

    def _end(self) -> None:
        """Allow another member to follow."""


class _Deflate(_ZlibDecoder):
    """A zlib stream (RFC 9110, section 8.4.1.2), or bare deflate, which some servers send."""

    def __init__(self) -> None:
        super().__init__()
        self._is_over = False

    def _start(self) -> _Decompressor | None:
        if self._is_over:
            self._end()
            return None
        if len(self._input) < 2:
            return None
        is_zlib = self._input[0] & 15 == 8 and int.from_bytes(self._input[:2], "big") % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)

    def _end(self) -> None:
        self._is_over = True
        self._input = self._input.lstrip(b"\0")
        if self._input:
            raise CodingError("the compressed response is followed by something else")


_DECODERS: Final = {"gzip": _Gzip, "deflate": _Deflate}
