"""Slices of time: whoever works on what a peer has sent lets other tasks run now and then.

A peer decides how much work its bytes are, and a byte may be worth microseconds: two make a frame
of a WebSocket, one is a line of a stream of events. So no reader works until its input is used up;
each works for a slice of time, then the event loop turns.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SLICE", "TIME_SLICE", "SlicedDecoder", "TimeSlice"]

T = TypeVar("T")

#: How long a task works on received data before other tasks run, in seconds.
TIME_SLICE: Final = 0.005
#: How many bytes are decoded in one step that cannot be interrupted.
SLICE: Final = 65536


class TimeSlice:
    """The time for which a task may work before other tasks run."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = monotonic() + TIME_SLICE

    @property
    def is_over(self) -> bool:
        """Whether other tasks should run now."""
        return monotonic() >= self._end

    async def end(self) -> None:
        """Let other tasks run, then begin the next slice."""
        await checkpoint()
        self._end = monotonic() + TIME_SLICE


class SlicedDecoder(Generic[T]):
    """Decodes a stream in slices, however long its chunks are.

    Args:
        decode: Gives the items that some bytes complete.

    Attributes:
        decode: The same, to be replaced once it is known how to decode.
        items: The items of the last slice that have not been taken.
    """

    def __init__(self, decode: Callable[[bytes], Iterator[T]]) -> None:
        self.decode = decode
        self.items: Iterator[T] = iter(())
        self._rest: memoryview | None = None
        self._time_slice = TimeSlice()

    def feed(self, chunk: bytes) -> None:
        """Add a chunk, when the one before is decoded."""
        self._rest = memoryview(chunk)

    async def advance(self) -> bool:
        """Decode the next slice, which may have no items; false when a chunk has to be fed."""
        if self._time_slice.is_over:
            await self._time_slice.end()
        if self._rest is None:
            return False
        piece, rest = self._rest[:SLICE], self._rest[SLICE:]
        self._rest = rest or None
        self.items = self.decode(bytes(piece))
        return True

    def drop(self) -> None:
        """Forget what was received."""
        self.items, self._rest = iter(()), None
