"""Bytes on their way out of a connection, in order, written as few times as possible."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import anyio

from fal_async._transport.frames import LONG, LongFrame

if TYPE_CHECKING:
    from fal_async._transport.sockets import SocketStream

__all__ = ["Outbox"]

#: How much is offered in one write, in bytes. Each write has its price, and so has each copy.
OFFER: Final = LONG
#: How many writes are made in a row before other tasks get their turn.
WRITES: Final = 4
#: Above so many bytes that the network has not taken yet, whoever wants to send waits.
HIGH_WATER: Final = 65536


class Outbox:
    """What is put in here goes out whole, whatever becomes of the task that put it in.

    The first thing after a turn of the event loop is written at once, which is best for a message
    that is waited for. What follows before the loop turns again goes out together. Nothing here
    waits in the middle of a write, so there are no half frames to be left behind.

    Attributes:
        size: How many bytes wait.
        taken: How many bytes the network has taken so far.
        failure: Why nothing can be written any more, or ``None``.
        prompt: Whether the loop has turned since the last write.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._parts: deque[bytes | memoryview | LongFrame] = deque()
        self._room: anyio.Event | None = None
        self._work: anyio.Event | None = None
        self._closed = False
        self.size = 0
        self.taken = 0
        self.failure: OSError | None = None
        self.prompt = True

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing more should be put in."""
        return self.size > HIGH_WATER

    def post(self, frames: bytes | LongFrame) -> None:
        """Put whole frames in; nothing, once the outbox is closed."""
        if self._closed:
            return
        self._parts.append(frames)
        self.size += len(frames)
        if self.prompt:
            self.prompt = False
            self.flush()
        elif self._work is not None:
            self._work.set()
            self._work = None

    def flush(self) -> None:
        """Write what the network takes at once, up to a bound."""
        for _ in range(WRITES):
            if not self._parts:
                break
            offered = self._next()
            try:
                sent = self._stream.send_nowait(
                    offered if len(offered) <= OFFER else memoryview(offered)[:OFFER]
                )
            except OSError as error:
                self.failure = error
                self.close()
                return
            self.size -= sent
            self.taken += sent
            if sent == len(offered):
                continue
            self._parts.appendleft(memoryview(offered)[sent:])
            if not sent:
                break
        if self._room is not None and not self.is_full:
            self._room.set()
            self._room = None
        if self._parts and self._work is not None:
            self._work.set()
            self._work = None

    def _next(self) -> bytes | memoryview:
        """The first part, joined by the small ones that follow."""
        first = self._pop()
        if not self._parts or len(first) >= OFFER:
            return first
        together, size = [first], len(first)
        while self._parts and size + len(self._parts[0]) <= OFFER:
            part = self._pop()
            together.append(part)
            size += len(part)
        return b"".join(together)

    def _pop(self) -> bytes | memoryview:
        part = self._parts.popleft()
        if not isinstance(part, LongFrame):
            return part
        masked = part.take(OFFER)
        if part:
            self._parts.appendleft(part)
        return masked

    async def wait_for_room(self) -> None:
        """Wait until less than `HIGH_WATER` bytes wait, or nothing can be written any more."""
        while self.is_full and not self._closed:
            if self._room is None:
                self._room = anyio.Event()
            await self._room.wait()

    async def run(self) -> None:
        """Write what could not be written at once; ends when the outbox is closed."""
        while not self._closed:
            self.flush()
            self.prompt = True
            if self._parts:
                await self._stream.wait_sendable()
            else:
                self._work = anyio.Event()
                await self._work.wait()

    def close(self) -> None:
        """Throw away what waits, and let everybody go who waits for it to be written."""
        self._closed = True
        self._parts.clear()
        self.size = 0
        for event in (self._room, self._work):
            if event is not None:
                event.set()
        self._room = self._work = None
