"""Compressed bodies of responses, decompressed as they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from fal_async._net.errors import DecodingError
from fal_async._net.time_slices import TimeSlice
from fal_async._protocol.content_coding import CodingError, ContentDecoder, content_codings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["DecodedBody"]


class DecodedBody:
    """The decompressed body of a response, in pieces of bounded size, each made when it is read.

    It is no generator, so nothing stays open when it is left.

    Args:
        body: The body as it was sent.
        encoding: The Content-Encoding header.
    """

    def __init__(self, body: AsyncIterator[bytes], encoding: str) -> None:
        self._body = body
        self._encoding = encoding
        self._decoder: ContentDecoder | None = None
        self._time_slice = TimeSlice()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            DecodingError: The body cannot be decompressed, or is cut off.
        """
        try:
            while True:
                if self._time_slice.is_over:
                    await self._time_slice.end()
                if piece := await self._step():
                    return piece
        except CodingError as error:
            raise DecodingError(str(error)) from error

    async def _step(self) -> bytes:
        decoder = self._decoder
        piece = None if decoder is None else decoder.step()
        if piece is not None:
            return piece
        received = await anext(self._body, None)
        if received is None:
            if decoder is not None:
                decoder.finish()
            raise StopAsyncIteration
        if decoder is None and received:  # a response without a body may name any coding
            decoder = self._decoder = ContentDecoder(content_codings(self._encoding))
        if decoder is not None:
            decoder.feed(received)
        return b""
