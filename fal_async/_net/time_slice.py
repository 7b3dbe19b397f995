"""Time slices: tasks that process received data let other tasks run regularly.

The peer decides how much work its bytes cause, and one byte may take microseconds: two bytes are a
WebSocket frame, and one is a line of an event stream. So no task processes all of its input at
once. It works for a time slice, and lets the event loop run other tasks.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SLICE", "TIME_SLICE", "SlicedDecoder", "TimeSlice"]

T = TypeVar("T")

#: Time for which a task processes received data before other tasks run, in seconds.
TIME_SLICE: Final = 0.005
#: Number of bytes that are decoded without interruption.
SLICE: Final = 65536


class TimeSlice:
    """The time for which a task works before other tasks run."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        self._end = monotonic() + TIME_SLICE

    @property
    def is_over(self) -> bool:
        """True if other tasks should run now."""
        return monotonic() >= self._end

    def restart(self) -> None:
        """Start the next slice, before or after other tasks have run."""
        self._end = monotonic() + TIME_SLICE

    async def end(self) -> None:
        """Let other tasks run, and start the next slice."""
        await checkpoint()
        self.restart()


class SlicedDecoder(Generic[T]):
    """Decodes a stream in slices, independent of the size of its chunks.

    Args:
        decode: Returns the items that the given bytes complete.

    Attributes:
        decode: The same function. It may be replaced once the encoding is known.
        items: The remaining items of the last slice.
    """

    def __init__(self, decode: Callable[[bytes], Iterator[T]]) -> None:
        self.decode = decode
        self.items: Iterator[T] = iter(())
        self._rest: memoryview | None = None
        self._time_slice = TimeSlice()

    def feed(self, chunk: bytes) -> None:
        """Add a chunk, after the previous one has been decoded."""
        self._rest = memoryview(chunk)

    async def advance(self) -> bool:
        """Decode the next slice, which may have no items; return ``False`` if it needs a chunk."""
        if self._time_slice.is_over:
            await self._time_slice.end()
        if self._rest is None:
            return False
        data, rest = self._rest[:SLICE], self._rest[SLICE:]
        self._rest = rest or None
        self.items = self.decode(bytes(data))
        return True

    def drop(self) -> None:
        """Discard the received data."""
        self.items, self._rest = iter(()), None
