"""What can stand behind an endpoint id: functions of four kinds; `_asgi.py` has the fifth."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Generator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

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
#: An ASGI app takes the scope, and the two ends of the exchange.
_ASGI_PARAMETERS = 3


class Runner(Protocol):
    """Answers jobs by sending ASGI response messages."""

    #: Whether a run is over when the caller hangs up.
    streams: bool

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer one job."""

    async def cancel(self, job: Job) -> bool:
        """Tell it that a job was called off; says whether to cancel the task that runs the job."""
        ...

    async def aclose(self) -> None:
        """Give back what it holds."""


def runner_of(target: RunnerFunction, threads: Threads) -> Runner:
    """The runner that a registered object stands for."""
    if len(positional(target)) == _ASGI_PARAMETERS:
        return AsgiRunner(target)
    function = _function_of(target)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        return StreamRunner(target, threads)
    return FunctionRunner(target, threads, is_async=inspect.iscoroutinefunction(function))


class FunctionRunner:
    """A function, sync or async, whose return value is the result."""

    streams = False

    def __init__(self, function: RunnerFunction, threads: Threads, *, is_async: bool) -> None:
        self._function = function
        self._signature = Signature(function)
        self._threads = threads
        self._is_async = is_async

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer with what the function returns."""
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

    async def cancel(self, job: Job) -> bool:
        """An async function is cancelled; a thread can only look at `Job.cancelled`."""
        return self._is_async

    async def aclose(self) -> None:
        """A function holds nothing."""


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
        """Answer with an event for each item."""
        if refusal := _misdirected(job, paths=("/", "/stream")):
            return await refusal.send(send)
        generator = self._function(*self._signature.arguments(job))
        if isinstance(generator, Generator):
            generator = _stepped(cast("Generator[object]", generator), self._threads)
        async with aclosing(cast("AsyncGenerator[object]", generator)) as events:
            return await _send_events(events, send)

    async def cancel(self, job: Job) -> bool:
        """A generator is closed."""
        return True

    async def aclose(self) -> None:
        """A generator holds nothing between runs."""


def _function_of(target: RunnerFunction) -> Callable[..., Any]:
    """What runs when the target is called: an object's method, what a partial is made of."""
    while isinstance(target, functools.partial):
        target = target.func
    return target if inspect.isroutine(target) else type(target).__call__


def _misdirected(job: Job, paths: tuple[str, ...]) -> Reply | None:
    if job.path not in paths:
        return path_not_found(job.path)
    return None if job.method == "POST" else method_not_allowed("POST")


def _output(result: object) -> Reply:
    if isinstance(result, bytes | bytearray):
        return Reply(200, bytes(result), [_BYTES])
    if isinstance(result, BaseModel):
        return Reply(200, result.model_dump_json().encode(), [_JSON])
    return Reply(200, encode(result), [_JSON])


async def _send_events(events: AsyncGenerator[object], send: Send) -> None:
    # The head waits for the first event, so that an early failure is an ordinary error reply.
    event = await anext(events, _END)
    await send({"type": "http.response.start", "status": 200, "headers": [_SSE]})
    while event is not _END:
        await send({"type": "http.response.body", "body": _frame(event), "more_body": True})
        event = await anext(events, _END)
    await send({"type": "http.response.body", "body": b""})


def _frame(event: object) -> bytes:
    """An event as it is sent. Bytes go as they are: so a runner can write frames of its own."""
    if isinstance(event, bytes):
        return event
    return b"data: " + _output(event).body + b"\n\n"


async def _stepped(generator: Generator[object], threads: Threads) -> AsyncGenerator[object]:
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
