"""``fal.run``: direct runs and streams."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from fal_async.emulator._answer import IncompleteReplyError
from fal_async.emulator._execution import execute
from fal_async.emulator._hosts.calls import Call, admit, called_id, new_job
from fal_async.emulator._policy import start_timeout
from fal_async.emulator._replies import Refusal, too_many_running

if TYPE_CHECKING:
    from fal_async.emulator._exchange import Exchange
    from fal_async.emulator._job import Job
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._registry import Endpoint


class RunHost:
    """Answers calls of ``fal.run``: now, or not at all."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def call(self, exchange: Exchange) -> Call:
        """A run; a stream if it says so by its path or by what it accepts."""
        path = exchange.place.path
        accepts = exchange.headers.get("accept", "")
        is_stream = path.endswith("/stream") or "text/event-stream" in accepts
        return Call("stream" if is_stream else "run", called_id(path))

    async def answer(self, exchange: Exchange, call: Call) -> None:
        """Have a runner answer."""
        exchange.request_id = request_id = str(uuid.uuid4())
        target = admit(self._platform, exchange, call)
        start_timeout(exchange.headers)  # only to refuse a bad one: what runs at once is not late
        limit = self._platform.scheduler.limit_reached(target.endpoint)
        if limit is not None:
            raise Refusal(too_many_running(limit))
        job = new_job(self._platform, exchange, call, target, request_id=request_id, direct=True)
        with self._platform.scheduler.direct_run(job, target.endpoint):
            await self._run(exchange, target.endpoint, job)

    async def _run(self, exchange: Exchange, endpoint: Endpoint, job: Job) -> None:
        task = asyncio.current_task()

        def hang_up() -> None:
            job.call_off()
            if endpoint.runner.streams and task is not None:
                task.cancel()

        with exchange.connection.when_lost(hang_up):
            try:
                await execute(self._platform, endpoint, job, exchange)
            except IncompleteReplyError:
                await exchange.connection.end()
