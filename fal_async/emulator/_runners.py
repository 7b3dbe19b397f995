"""What can stand behind an endpoint id: Python functions of four kinds; ASGI apps are in `_asgi.py`."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Generator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pydantic import BaseModel
from starlette.responses import Response

from fal_async.emulator._asgi import AsgiRunner, http_scope, receiver
from fal_async.emulator._inputs import Signature, positional
from fal_async.emulator._replies import Reply, encode, method_not_allowed, path_not_found

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fal_async.emulator._job import Job
    from fal_async.emulator._replies import Send
    from fal_async.emulator._threads import Threads

__all__ = ["Runner", "RunnerFunction", "runner_of"]

#: An ASGI app, or a function of the arguments, or a function of the arguments and the `Job`.
RunnerFunction: TypeAlias = "Callable[..., Any]"

_JSON = (b"content-type", b"application/json")
_BYTES = (b"content-type", b"application/octet-stream")
_SSE = (b"content-type", b"text/event-stream; charset=utf-8")
_END = object()
_ASGI_PARAMETERS = 3


class Runner(Protocol):
    """Answers jobs by sending ASGI response messages."""

    #: Whether a run is over when the caller hangs up.
    streams: bool

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer one job."""

    async def cancel(self, job: Job) -> bool:
        """Tell it that a job was cancelled; whether the task that runs the job is to be cancelled, too."""
        ...

    async def aclose(self) -> None:
        """Give back what it holds."""


def runner_of(target: RunnerFunction, threads: Threads) -> Runner:
    """The runner that a registered object stands for."""
    if len(positional(target)) == _ASGI_PARAMETERS:
        return AsgiRunner(target)
    called = target if inspect.isroutine(target) else getattr(target, "__call__", target)  # noqa: B004 - its kind
    if inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        return StreamRunner(target, threads)
    return FunctionRunner(target, threads, is_async=inspect.iscoroutinefunction(called))


class FunctionRunner:
    """A function, sync or async, whose return value is the result."""

    streams = False

    def __init__(self, function: RunnerFunction, threads: Threads, *, is_async: bool) -> None:
        self._function = function
        self._signature = Signature(function)
        self._threads = threads
        self._is_async = is_async

    async def __call__(self, job: Job, send: Send) -> None:
        if refusal := _misdirected(job, paths=("/",)):
            return await refusal.send(send)
        arguments = self._signature.arguments(job)
        if self._is_async:
            result = await self._function(*arguments)
        else:
            result = await self._threads.call(functools.partial(self._function, *arguments))
        if isinstance(result, Response):
            return await result(http_scope(job), receiver(job), send)
        return await _output(result).send(send)

    async def cancel(self, job: Job) -> bool:  # noqa: ARG002 - a function is all alike
        return self._is_async

    async def aclose(self) -> None:
        return


class StreamRunner:
    """A generator, sync or async, whose items are the events of a stream.

    It is served under its id and, as is the convention, under ``/stream`` below it.
    """

    streams = True

    def __init__(self, function: RunnerFunction, threads: Threads) -> None:
        self._function = function
        self._signature = Signature(function)
        self._threads = threads

    async def __call__(self, job: Job, send: Send) -> None:
        if refusal := _misdirected(job, paths=("/", "/stream")):
            return await refusal.send(send)
        generator = self._function(*self._signature.arguments(job))
        if isinstance(generator, Generator):
            generator = _stepped(generator, self._threads)
        async with aclosing(generator) as events:
            await _send_events(events, send)

    async def cancel(self, job: Job) -> bool:  # noqa: ARG002 - a generator is closed, whatever the job
        return True

    async def aclose(self) -> None:
        return


def _misdirected(job: Job, paths: tuple[str, ...]) -> Reply | None:
    if job.path not in paths:
        return path_not_found(job.path)
    if job.method != "POST":
        return method_not_allowed("POST")
    return None


def _output(result: object) -> Reply:
    if isinstance(result, bytes | bytearray | memoryview):
        return Reply(200, bytes(result), [_BYTES])
    if isinstance(result, BaseModel):
        return Reply(200, result.model_dump_json().encode(), [_JSON])
    return Reply(200, encode(result), [_JSON])


async def _send_events(events: AsyncGenerator[object, None], send: Send) -> None:
    # The first event is awaited before the head is sent, so that an early failure is an ordinary error reply.
    event = await anext(events, _END)
    await send({"type": "http.response.start", "status": 200, "headers": [_SSE]})
    while event is not _END:
        await send({"type": "http.response.body", "body": _frame(event), "more_body": True})
        event = await anext(events, _END)
    await send({"type": "http.response.body", "body": b""})


def _frame(event: object) -> bytes:
    """An event as it is sent; bytes are sent as they are, so that a runner can write frames of its own."""
    if isinstance(event, bytes):
        return event
    return b"data: " + _output(event).body + b"\n\n"


async def _stepped(
    generator: Generator[object, None, None], threads: Threads
) -> AsyncGenerator[object, None]:
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
