"""Functions as runners."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Generator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from starlette.responses import Response

from fal_async.emulator._runners.asgi import AsgiRunner, serve_http
from fal_async.emulator._runners.base import check_path, response_from
from fal_async.emulator._runners.signatures import FunctionSignature, positional

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._responses import Send
    from fal_async.emulator._runners.base import Runner
    from fal_async.emulator._runners.sockets import SocketRunner
    from fal_async.emulator._runners.threads import DaemonThreads

__all__ = []


class FunctionRunner:
    """A function, sync or async, whose return value is the result."""

    streams = False

    def __init__(
        self, function: Callable[..., Any], threads: DaemonThreads, *, is_async: bool
    ) -> None:
        self._function = function
        self._signature = FunctionSignature(function)
        self._threads = threads
        self._is_async = is_async

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer with what the function returns."""
        if refusal := check_path(job, paths=("/",)):
            return await refusal.send(send)
        arguments = self._signature.arguments(job)
        if self._is_async:
            output = await self._function(*arguments)
        else:
            output = await self._threads.call(functools.partial(self._function, *arguments))
        if isinstance(output, Response):
            return await serve_http(output, job, send)
        return await response_from(output).send(send)

    async def cancel(self, job: Job) -> bool:
        """An async function is cancelled; a thread can only look at `Job.cancelled`."""
        return self._is_async

    async def aclose(self) -> None:
        """A function holds nothing."""


_SSE = (b"content-type", b"text/event-stream; charset=utf-8")


_HEARTBEAT = b": heartbeat\n\n"


_END = object()


class StreamRunner:
    """A generator, sync or async.

    It is served under its id and, as is the convention, under ``/stream`` below it.
    """

    streams = True

    def __init__(
        self, function: Callable[..., Any], threads: DaemonThreads, *, heartbeat: float | None
    ) -> None:
        self._function = function
        self._signature = FunctionSignature(function)
        self._threads = threads
        self._heartbeat = heartbeat

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer with an event for each item."""
        if refusal := check_path(job, paths=("/", "/stream")):
            return await refusal.send(send)
        generator = self._function(*self._signature.arguments(job))
        if isinstance(generator, Generator):
            generator = iterate_in_threads(cast("Generator[object]", generator), self._threads)
        stream = _Stream(send)
        async with (
            aclosing(cast("AsyncGenerator[object]", generator)) as events,
            _heartbeats(stream, self._heartbeat),
        ):
            async for event in events:
                await stream.write(_frame(event))
        return await stream.end()

    async def cancel(self, job: Job) -> bool:
        """A generator is closed."""
        return True

    async def aclose(self) -> None:
        """A generator holds nothing between runs."""


class _Stream:
    """A streamed response, whose head is sent with the first item of the body."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self.frames = 0

    async def write(self, frame: bytes) -> None:
        """Send a frame."""
        self.frames += 1
        await self._start()
        await self._send({"type": "http.response.body", "body": frame, "more_body": True})

    async def end(self) -> None:
        """Send what ends the body."""
        await self._start()
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": [_SSE]})


@asynccontextmanager
async def _heartbeats(stream: _Stream, seconds: float | None) -> AsyncGenerator[None]:
    """Send a comment whenever the stream was silent for so long."""
    if seconds is None:
        yield
        return
    heart = asyncio.create_task(_beat(stream, seconds))
    try:
        yield
    finally:
        heart.cancel()


async def _beat(stream: _Stream, seconds: float) -> None:
    while True:
        frames = stream.frames
        await asyncio.sleep(seconds)
        if stream.frames == frames:
            await stream.write(_HEARTBEAT)


def _frame(event: object) -> bytes:
    """An event as it is sent. Bytes go as they are: so a runner can write frames of its own."""
    if isinstance(event, bytes):
        return event
    return b"data: " + response_from(event).body + b"\n\n"


async def iterate_in_threads(
    generator: Generator[object], threads: DaemonThreads
) -> AsyncGenerator[object]:
    """A blocking generator, each step of which runs in a thread."""
    lock = threading.Lock()

    def step() -> object:
        with lock:
            return next(generator, _END)

    def close() -> None:
        with lock, suppress(Exception):
            generator.close()

    try:
        while (event := await threads.call(step)) is not _END:
            yield event
    finally:
        threads.call(close)  # not awaited: a step that was left behind may still hold the lock


#: An ASGI app, or a function of the arguments, or a function of the arguments and the `Job`.
RunnerFunction: TypeAlias = Callable[..., Any]


#: An ASGI app takes the scope, and the two ends of the exchange.
_ASGI_PARAMETERS = 3


def make_runner(
    target: RunnerFunction, threads: DaemonThreads, *, heartbeat: float | None = None
) -> Runner:
    """The runner that a registered object stands for."""
    if len(positional(target)) == _ASGI_PARAMETERS:
        return AsgiRunner(target)
    function = _function_of(target)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return StreamRunner(target, threads, heartbeat=heartbeat)
    return FunctionRunner(target, threads, is_async=inspect.iscoroutinefunction(function))


def websocket_runner(runner: Runner) -> SocketRunner | None:
    """What serves WebSockets where this runner stands, if it can."""
    return runner if isinstance(runner, AsgiRunner) else None


def _function_of(target: RunnerFunction) -> RunnerFunction:
    """What runs when the target is called: an object's method, what a partial is made of."""
    while isinstance(target, functools.partial):
        target = target.func
    return target if inspect.isroutine(target) else type(target).__call__
