"""Stretches of sources as bodies of requests, and word of how far they have gone out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, TypeAlias

import anyio

from fal_async._transport.pulling import CHUNK
from fal_async.errors import UploadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fal_async._transport.sources import Source

__all__ = ["OnProgress", "Progress", "Stretch"]

#: Told how many bytes have been sent, and how many there are, if that is known.
OnProgress: TypeAlias = Callable[[int, int | None], Awaitable[None] | None]


class Progress:
    """Tells the caller how many bytes have gone out, and never fewer than before.

    Args:
        callback: Whom to tell; ``None`` for nobody.
        size: How many bytes there are; ``None`` when that is not known.
    """

    def __init__(self, callback: OnProgress | None, size: int | None) -> None:
        self._callback = callback
        self._size = size
        self._positions: dict[int, int] = {}
        self._sum = self._told = 0
        self._telling = anyio.Lock(fast_acquire=True)

    async def moved(self, number: int, position: int) -> None:
        """So many bytes of a part have gone out."""
        self._sum += position - self._positions.get(number, 0)
        self._positions[number] = position
        if self._callback is None:
            return
        async with self._telling:  # one call after another, also of a callback that waits
            if self._sum > self._told:
                self._told = self._sum
                waiting = self._callback(self._sum, self._size)
                if isawaitable(waiting):
                    await waiting


@dataclass(frozen=True, slots=True)
class Stretch:
    """The bytes of a source from `start` up to but not including `stop`: part `number` of it."""

    source: Source
    number: int
    start: int
    stop: int
    progress: Progress

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.stop - self.start

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Reader(self)


class _Reader:
    """Reads a stretch. It is no generator, so nothing stays open when it is left."""

    def __init__(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._position = stretch.start

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        stretch, position = self._stretch, self._position
        await stretch.progress.moved(stretch.number, position - stretch.start)
        length = min(CHUNK, stretch.stop - position)
        if not length:
            raise StopAsyncIteration
        chunk = await stretch.source.read_at(position, length)
        if len(chunk) != length:
            size = stretch.source.size
            raise UploadError(f"the file has fewer than the {size} bytes it had", size=size)
        self._position += length
        return chunk
