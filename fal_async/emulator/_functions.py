"""Functions as runners."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from fal_async.emulator._asgi import serve_http
from fal_async.emulator._inputs import Signature
from fal_async.emulator._runner import misdirected, reply_with

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._job import Job
    from fal_async.emulator._replies import Send
    from fal_async.emulator._threads import Threads


class FunctionRunner:
    """A function, sync or async, whose return value is the result."""

    streams = False

    def __init__(self, function: Callable[..., Any], threads: Threads, *, is_async: bool) -> None:
        self._function = function
        self._signature = Signature(function)
        self._threads = threads
        self._is_async = is_async

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer with what the function returns."""
        if refusal := misdirected(job, paths=("/",)):
            return await refusal.send(send)
        arguments = self._signature.arguments(job)
        if self._is_async:
            output = await self._function(*arguments)
        else:
            output = await self._threads.call(functools.partial(self._function, *arguments))
        if isinstance(output, Response):
            return await serve_http(output, job, send)
        return await reply_with(output).send(send)

    async def cancel(self, job: Job) -> bool:
        """An async function is cancelled; a thread can only look at `Job.cancelled`."""
        return self._is_async

    async def aclose(self) -> None:
        """A function holds nothing."""
