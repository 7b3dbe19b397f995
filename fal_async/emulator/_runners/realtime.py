"""What happens in a realtime session: inputs come in, and wait for the app."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qs

from pydantic import BaseModel

from fal_async.emulator._json import decode_packed, encode, encode_packed
from fal_async.emulator._responses import RejectedError, path_not_found
from fal_async.emulator._runners.functions import iterate_in_threads
from fal_async.emulator._runners.signatures import inspect_realtime
from fal_async.emulator._runners.threads import as_exception
from fal_async.emulator._server.websocket import DisconnectedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._runners.signatures import RealtimeSignature
    from fal_async.emulator._runners.threads import DaemonThreads
    from fal_async.emulator._server.websocket import WebSocket

__all__ = ["InputQueue", "cancel_on_disconnect"]


class InputQueue:
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
    async def receiving(self) -> AsyncGenerator[Self]:
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
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
            self._error = error
        finally:
            self._news.set()


async def cancel_on_disconnect(websocket: WebSocket, work: Coroutine[None, None, None]) -> None:
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
        raise as_exception(error) from error


_PATHS = frozenset({"/", "/realtime"})


_NO_INPUTS = "no inputs, reconnect when needed!"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeOptions:
    """How a realtime app treats its sessions; `Emulator.realtime` documents each."""

    buffering: int | None = None
    session_timeout: float | None = None
    max_batch_size: int = 1
    timings: bool = False


class RealtimeRunner:
    """A function of an input or of an iterator of inputs, with an output or several."""

    route: Route = "realtime"

    def __init__(
        self, function: Callable[..., Any], threads: DaemonThreads, habits: RealtimeOptions
    ) -> None:
        self._function = function
        self._threads = threads
        self._habits = habits
        self._shape = inspect_realtime(function, batches=habits.max_batch_size > 1)

    async def serve(self, job: Job, websocket: WebSocket) -> None:
        """Hold a session."""
        if job.path not in _PATHS:
            raise RejectedError(path_not_found(job.path))
        await websocket.accept()
        try:
            last_words = await self._session(job, websocket)
            await websocket.send(encode(last_words).decode())
            await websocket.close()
        except DisconnectedError:
            return

    async def aclose(self) -> None:
        """A function holds nothing."""

    async def _session(self, job: Job, websocket: WebSocket) -> dict[str, str]:
        """Let the session run its course; gives what is to be said at its end."""
        inputs = InputQueue(
            websocket,
            functools.partial(_read, self._shape),
            keep=_buffering_wanted(job) or self._habits.buffering,
            timeout=self._habits.session_timeout,
        )
        session = _Session(self._function, self._shape, self._habits, self._threads, job, websocket)
        try:
            async with inputs.receiving():
                if self._shape.takes_stream:
                    await session.run(inputs)
                else:
                    await cancel_on_disconnect(websocket, session.run(inputs))
        except DisconnectedError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is for the client to read
            return {"type": "x-fal-error", "error": "INTERNAL_ERROR", "reason": str(error)}
        return {"type": "x-fal-error", "error": "TIMEOUT", "reason": _NO_INPUTS}


@dataclass(slots=True)
class _Session:
    """One session of an app."""

    function: Callable[..., Any]
    shape: RealtimeSignature
    habits: RealtimeOptions
    threads: DaemonThreads
    job: Job
    websocket: WebSocket

    async def run(self, inputs: InputQueue) -> None:
        """Answer inputs until there are no more, or the app has said all that it has to say."""
        if self.shape.takes_stream:
            await self._answer(inputs)
        elif self.shape.gives_stream:
            with suppress(StopAsyncIteration):
                await self._answer(await anext(inputs))
        else:
            async for first in inputs:
                await self._answer(first, *inputs.batch(self.habits.max_batch_size - 1))

    async def _answer(self, *arguments: object) -> None:
        began = time.perf_counter()
        if self.shape.gives_stream:
            async with aclosing(self._outputs(*arguments)) as outputs:
                async for output in outputs:
                    await self.websocket.send(_packed(output))
        else:
            await self.websocket.send(_packed(await self._call(*arguments)))
        if self.habits.timings:
            seconds = time.perf_counter() - began
            timing = {"type": "x-fal-message", "action": "timings", "timing": seconds}
            await self.websocket.send(encode(timing).decode())

    async def _outputs(self, *arguments: object) -> AsyncGenerator[object]:
        outputs = await self._call(*arguments)
        if hasattr(outputs, "__aiter__"):
            async for output in cast("AsyncIterable[object]", outputs):
                yield output
        else:
            steps = (output for output in cast("Iterable[object]", outputs))
            async with aclosing(iterate_in_threads(steps, self.threads)) as items:
                async for output in items:
                    yield output

    async def _call(self, *arguments: object) -> Any:
        if self.shape.takes_job:
            arguments = (*arguments, self.job)
        if not self.shape.is_async:
            return await self.threads.call(functools.partial(self.function, *arguments))
        result = self.function(*arguments)
        return result if hasattr(result, "__aiter__") else await result


def _read(shape: RealtimeSignature, message: str | bytes) -> Any:
    if isinstance(message, str):
        raise KeyError("bytes")
    value = decode_packed(message)
    return value if shape.model is None else shape.model.model_validate(value)


def _packed(output: object) -> bytes:
    if not isinstance(output, dict | BaseModel):
        raise TypeError(f"Expected a dict or pydantic model as output, got {type(output)}")
    return encode_packed(cast("object", output))


def _buffering_wanted(job: Job) -> int | None:
    """How many inputs the client wants to be kept, if it says."""
    text = parse_qs(job.query).get("max_buffering", [""])[-1]
    return int(text) if text.isdecimal() and int(text) else None
