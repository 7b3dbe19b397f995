"""Realtime functions and their sessions."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import parse_qs

from pydantic import BaseModel, ValidationError

from fal_async.emulator._json import decode_msgpack, encode, encode_msgpack
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

__all__ = ["RealtimeOptions", "RealtimeRunner"]

_PATHS = frozenset({"/", "/realtime"})
_NO_INPUTS = "no inputs, reconnect when needed!"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeOptions:
    """The options of a realtime function. `Emulator.realtime` documents each."""

    buffering: int | None = None
    session_timeout: float | None = None
    max_batch_size: int = 1
    timings: bool = False


class RealtimeRunner:
    """A function of one input or of an iterator of inputs, with one output or several."""

    route: Route = "realtime"

    def __init__(
        self, function: Callable[..., Any], threads: DaemonThreads, options: RealtimeOptions
    ) -> None:
        self._function = function
        self._threads = threads
        self._options = options
        self._signature = inspect_realtime(function, batches=options.max_batch_size > 1)

    async def serve(self, job: Job, websocket: WebSocket) -> None:
        """Accept the WebSocket, serve a session, and close the WebSocket."""
        if job.path not in _PATHS:
            raise RejectedError(path_not_found(job.path))
        await websocket.accept()
        try:
            try:
                await self._run_session(job, websocket)
            except DisconnectedError:
                return
            except (Exception, SystemExit) as error:  # noqa: BLE001 - sent to the client
                if not isinstance(error, ValidationError):  # of the client's input
                    job._report_crash(error)
                final = {"type": "x-fal-error", "error": "INTERNAL_ERROR", "reason": str(error)}
            else:
                final = {"type": "x-fal-error", "error": "TIMEOUT", "reason": _NO_INPUTS}
            await websocket.send(encode(final).decode())
            await websocket.close()
        except DisconnectedError:
            return

    async def aclose(self) -> None:
        """Do nothing: a function has no resources."""

    async def _run_session(self, job: Job, websocket: WebSocket) -> None:
        """Serve a session until the inputs or the outputs end."""
        max_buffering = parse_qs(job.query).get("max_buffering", [""])[-1]
        requested = int(max_buffering) if max_buffering.isdecimal() else 0
        signature, options = self._signature, self._options
        inputs = InputQueue(
            websocket,
            signature.model,
            max_waiting=requested or options.buffering,
            timeout=options.session_timeout,
        )
        session = _Session(self._function, signature, options, self._threads, job, websocket)
        async with inputs.receiving():
            if signature.takes_stream:
                await session.run(inputs)
            else:
                await cancel_on_disconnect(websocket, session.run(inputs))


class InputQueue:
    """The received inputs of a session, as an async iterator.

    It ends after the timeout, or when the client has disconnected.

    Args:
        websocket: The WebSocket from which inputs are received.
        model: The model with which inputs are validated. ``None`` disables validation.
        max_waiting: The number of waiting inputs above which the oldest is dropped. ``None`` for no
            limit.
        timeout: The time without inputs after which the session ends, in seconds. ``None`` disables
            the timeout.
    """

    def __init__(
        self,
        websocket: WebSocket,
        model: type[BaseModel] | None,
        *,
        max_waiting: int | None,
        timeout: float | None,
    ) -> None:
        self._websocket = websocket
        self._model = model
        self._timeout = timeout
        self._waiting: deque[Any] = deque(maxlen=max_waiting)
        self._changed = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    @asynccontextmanager
    async def receiving(self) -> AsyncGenerator[Self]:
        """Receive inputs during this block."""

        async def receive() -> None:
            try:
                while True:
                    async with asyncio.timeout(self._timeout):
                        message = await self._websocket.recv()
                    if isinstance(message, str):
                        raise KeyError("bytes")  # noqa: TRY301 - the error of real apps
                    value = decode_msgpack(message)
                    self._waiting.append(
                        value if self._model is None else self._model.model_validate(value)
                    )
                    self._changed.set()
            except (TimeoutError, DisconnectedError):
                self._ended = True
            except Exception as error:  # noqa: BLE001 -- raised again where inputs are read
                self._error = error
            finally:
                self._changed.set()

        task = asyncio.create_task(receive())
        try:
            yield self
        finally:
            task.cancel()

    def pop(self, max_size: int) -> list[Any]:
        """Remove and return the waiting inputs, up to a maximum number."""
        return [self._waiting.popleft() for _ in range(min(max_size, len(self._waiting)))]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


async def cancel_on_disconnect(websocket: WebSocket, run: Coroutine[None, None, None]) -> None:
    """Await a coroutine, and cancel it if the client disconnects.

    Raises:
        DisconnectedError: The client has disconnected.
    """

    async def run_without_exit() -> None:
        try:
            await run
        except (SystemExit, KeyboardInterrupt) as error:  # would end the event loop
            raise as_exception(error) from error

    task = asyncio.ensure_future(run_without_exit())
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


@dataclass(slots=True)
class _Session:
    """One session of a realtime function."""

    function: Callable[..., Any]
    signature: RealtimeSignature
    options: RealtimeOptions
    threads: DaemonThreads
    job: Job
    websocket: WebSocket

    async def run(self, inputs: InputQueue) -> None:
        """Process inputs until there are no more, or the outputs end."""
        if self.signature.takes_stream:
            await self._process(inputs)
        elif self.signature.returns_stream:
            with suppress(StopAsyncIteration):
                await self._process(await anext(inputs))
        else:
            async for first in inputs:
                await self._process(first, *inputs.pop(self.options.max_batch_size - 1))

    async def _process(self, *arguments: object) -> None:
        started = time.perf_counter()
        if self.signature.returns_stream:
            async with aclosing(self._iterate(await self._call(*arguments))) as outputs:
                async for output in outputs:
                    await self._send(output)
        else:
            await self._send(await self._call(*arguments))
        if self.options.timings:
            seconds = time.perf_counter() - started
            timing = {"type": "x-fal-message", "action": "timings", "timing": seconds}
            await self.websocket.send(encode(timing).decode())

    async def _send(self, output: object) -> None:
        if not isinstance(output, dict | BaseModel):
            raise TypeError(f"Expected a dict or pydantic model as output, got {type(output)}")
        await self.websocket.send(encode_msgpack(cast("object", output)))

    async def _iterate(self, outputs: object) -> AsyncGenerator[object]:
        if hasattr(outputs, "__aiter__"):
            async for output in cast("AsyncIterable[object]", outputs):
                yield output
        else:
            steps = (output for output in cast("Iterable[object]", outputs))
            async with aclosing(iterate_in_threads(steps, self.threads)) as items:
                async for output in items:
                    yield output

    async def _call(self, *arguments: object) -> Any:
        if self.signature.takes_job:
            arguments = (*arguments, self.job)
        if not self.signature.is_async:
            return await self.threads.call(functools.partial(self.function, *arguments))
        result = self.function(*arguments)
        return result if hasattr(result, "__aiter__") else await result
