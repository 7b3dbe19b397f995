"""What happens in a realtime session: inputs come in, and wait for the app."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from fal_async.emulator._threads import bearable
from fal_async.emulator._websocket import DisconnectedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from fal_async.emulator._websocket import WebSocket

__all__ = ["Inputs", "unless_closed"]


class Inputs:
    """The inputs of a session, in the order of their coming; an async iterator of them.

    It ends when there was none for too long, or when the client has gone.

    Args:
        websocket: Where they come from.
        read: Reads one of them.
        keep: How many wait at most before the oldest is dropped; ``None`` for any number.
        timeout: Seconds without an input that end the session; ``None`` for any number.
    """

    def __init__(
        self,
        websocket: WebSocket,
        read: Callable[[str | bytes], Any],
        *,
        keep: int | None,
        timeout: float | None,
    ) -> None:
        self._websocket = websocket
        self._read = read
        self._timeout = timeout
        self._waiting: deque[Any] = deque(maxlen=keep)
        self._news = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    @asynccontextmanager
    async def arriving(self) -> AsyncGenerator[Self]:
        """Take inputs in for the length of this block."""
        task = asyncio.create_task(self._take_in())
        try:
            yield self
        finally:
            task.cancel()

    def batch(self, size: int) -> list[Any]:
        """As many more inputs as are waiting, but no more than these."""
        return [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    async def _take_in(self) -> None:
        try:
            while True:
                async with asyncio.timeout(self._timeout):
                    message = await self._websocket.recv()
                self._waiting.append(self._read(message))
                self._news.set()
        except (TimeoutError, DisconnectedError):
            self._ended = True
        except Exception as error:  # noqa: BLE001 - it is raised where the inputs are awaited
            self._error = error
        finally:
            self._news.set()


async def unless_closed(websocket: WebSocket, work: Coroutine[None, None, None]) -> None:
    """Do the work, but give it up when the client has gone.

    Raises:
        DisconnectedError: It was given up.
    """
    task = asyncio.ensure_future(_ending_only_itself(work))
    closing = asyncio.ensure_future(websocket.wait_closed())
    try:
        await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise DisconnectedError(1006)
        task.result()
    finally:
        closing.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _ending_only_itself(work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise bearable(error) from error
