"""Functions and generators as runners."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Generator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from starlette.responses import Response

from fal_async.emulator._responses import EVENT_STREAM_TYPE
from fal_async.emulator._runners.asgi import AsgiRunner, serve_http
from fal_async.emulator._runners.base import check_path, is_asgi_app, response_from
from fal_async.emulator._runners.signatures import FunctionSignature

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._responses import Send
    from fal_async.emulator._runners.base import Runner
    from fal_async.emulator._runners.threads import DaemonThreads

#: An ASGI app, a function of the arguments, or a function of the arguments and the `Job`.
RunnerFunction: TypeAlias = Callable[..., Any]

_HEARTBEAT = b": heartbeat\n\n"
_END = object()


def make_runner(
    target: RunnerFunction, threads: DaemonThreads, *, heartbeat: float | None = None
) -> Runner:
    """Return the runner for a registered callable."""
    if is_asgi_app(target):
        return AsgiRunner(target)
    function = target
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return StreamRunner(target, threads, heartbeat=heartbeat)
    return FunctionRunner(target, threads, is_async=inspect.iscoroutinefunction(function))


class FunctionRunner:
    """A function, async or not, whose return value is the output."""

    streams = False

    def __init__(
        self, function: Callable[..., Any], threads: DaemonThreads, *, is_async: bool
    ) -> None:
        self._function = function
        self._signature = FunctionSignature(function)
        self._threads = threads
        self._is_async = is_async

    async def __call__(self, job: Job, send: Send) -> None:
        """Respond with the return value of the function."""
        if error := check_path(job, paths=("/",)):
            return await error.send(send)
        arguments = self._signature.arguments(job)
        if self._is_async:
            output = await self._function(*arguments)
        else:
            output = await self._threads.call(functools.partial(self._function, *arguments))
        if isinstance(output, Response):
            return await serve_http(output, job, send)
        return await response_from(output).send(send)

    async def cancel(self, job: Job) -> bool:
        """Return whether the function can be cancelled: a thread can only read `Job.cancelled`."""
        return self._is_async

    async def aclose(self) -> None:
        """Do nothing: a function has no resources."""


class StreamRunner:
    """A generator, async or not, whose items are the events of a stream.

    It is served at the endpoint id and, by convention, at the path ``/stream`` below it.
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
        """Respond with an event for each item."""
        if error := check_path(job, paths=("/", "/stream")):
            return await error.send(send)
        generator = self._function(*self._signature.arguments(job))
        if isinstance(generator, Generator):
            generator = iterate_in_threads(cast("Generator[object]", generator), self._threads)
        stream = _EventStream(send)
        heartbeats = None
        if self._heartbeat is not None:
            heartbeats = asyncio.create_task(stream.repeat_heartbeat(self._heartbeat))
        async with aclosing(cast("AsyncGenerator[object]", generator)) as events:
            try:
                async for event in events:
                    # Bytes are sent unchanged, so that a runner can write frames of its own.
                    if not isinstance(event, bytes):
                        event = b"data: " + response_from(event).body + b"\n\n"
                    await stream.write(event)
            finally:
                if heartbeats is not None:
                    heartbeats.cancel()
        return await stream.end()

    async def cancel(self, job: Job) -> bool:
        """Return True: the generator is closed."""
        return True

    async def aclose(self) -> None:
        """Do nothing: a generator has no resources between runs."""


class _EventStream:
    """A streamed response, whose head is sent with the first frame.

    Args:
        send: The ASGI ``send``.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self._frames = 0

    async def write(self, frame: bytes) -> None:
        """Send a frame."""
        self._frames += 1
        await self._start()
        await self._send({"type": "http.response.body", "body": frame, "more_body": True})

    async def end(self) -> None:
        """End the response."""
        await self._start()
        await self._send({"type": "http.response.body", "body": b""})

    async def repeat_heartbeat(self, interval: float) -> None:
        """Send a comment after each interval without frames, in seconds, until cancelled."""
        while True:
            frames = self._frames
            await asyncio.sleep(interval)
            if self._frames == frames:
                await self.write(_HEARTBEAT)

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            headers = [EVENT_STREAM_TYPE]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})


async def iterate_in_threads(
    generator: Generator[object], threads: DaemonThreads
) -> AsyncGenerator[object]:
    """Iterate over a blocking generator, with each step in a thread."""
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
        threads.call(close)  # not awaited: an abandoned step may still hold the lock
