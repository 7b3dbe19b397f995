"""Generators as runners: their items are the events of a stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from fal_async.emulator._inputs import Signature
from fal_async.emulator._runner import misdirected, reply_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fal_async.emulator._job import Job
    from fal_async.emulator._replies import Send
    from fal_async.emulator._threads import Threads

_SSE = (b"content-type", b"text/event-stream; charset=utf-8")
_HEARTBEAT = b": heartbeat\n\n"
_END = object()


class StreamRunner:
    """A generator, sync or async.

    It is served under its id and, as is the convention, under ``/stream`` below it.
    """

    streams = True

    def __init__(
        self, function: Callable[..., Any], threads: Threads, *, heartbeat: float | None
    ) -> None:
        self._function = function
        self._signature = Signature(function)
        self._threads = threads
        self._heartbeat = heartbeat

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer with an event for each item."""
        if refusal := misdirected(job, paths=("/", "/stream")):
            return await refusal.send(send)
        generator = self._function(*self._signature.arguments(job))
        if isinstance(generator, Generator):
            generator = stepped(cast("Generator[object]", generator), self._threads)
        stream = _Stream(send)
        async with (
            aclosing(cast("AsyncGenerator[object]", generator)) as events,
            _beating(stream, self._heartbeat),
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
    """The body of a reply. The head waits for it, so that an early failure is an error reply."""

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
async def _beating(stream: _Stream, seconds: float | None) -> AsyncGenerator[None]:
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
    return b"data: " + reply_with(event).body + b"\n\n"


async def stepped(generator: Generator[object], threads: Threads) -> AsyncGenerator[object]:
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
