"""One run of a runner: whatever the runner does, an answer comes out."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from typing import TYPE_CHECKING

from fal_async.emulator._answer import Answer, IncompleteReplyError, check_head
from fal_async.emulator._errors import AppError
from fal_async.emulator._json import encode
from fal_async.emulator._mishaps import runner_trouble
from fal_async.emulator._replies import Reply, internal_server_error, request_error

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fal_async.emulator._job import Job
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._replies import Message, RawHeaders, Send

_log = logging.getLogger("fal_async.emulator")

#: Headers that describe how a reply was sent, not what it is.
_OF_THE_TRANSFER = frozenset({b"content-length", b"transfer-encoding", b"connection"})


async def execute(platform: Platform, endpoint: Endpoint, job: Job, send: Send) -> None:
    """Have the endpoint's runner answer a job.

    Raises:
        IncompleteReplyError: The answer began, and cannot be ended properly.
    """
    endpoint.counters.executions += 1
    job.executions += 1
    platform.record.ring()
    answer = Answer(endpoint, job, send)
    began = time.perf_counter()
    try:
        substitute = await _run(platform, endpoint, job, answer)
    finally:
        job.inference_time = time.perf_counter() - began
    await answer.end(substitute)


async def collect(platform: Platform, endpoint: Endpoint, job: Job) -> Reply:
    """Have the endpoint's runner answer a job, and keep the answer."""
    collector = _Collector()
    try:
        await execute(platform, endpoint, job, collector)
    except IncompleteReplyError:
        return request_error("runner_incomplete_response", "The runner broke off in its reply")
    return collector.reply()


async def _run(platform: Platform, endpoint: Endpoint, job: Job, answer: Send) -> Reply | None:
    """Run the runner; says what to answer in its place if it gives no answer of its own."""
    limit = asyncio.timeout(endpoint.timeout)
    try:
        async with limit:
            reply = await runner_trouble(platform.faults, endpoint, job)
            if reply is None:
                reply = await _refusal(endpoint.runner(job, answer))
            if reply is not None:
                check_head(reply.status, reply.headers)
            return reply
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return _crashed(job)
    except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - an app ends only itself
        if limit.expired():
            return request_error("request_timeout", "Request timed out")
        return _crashed(job)


async def _refusal(run: Awaitable[None]) -> Reply | None:
    """How a runner says no, if it does."""
    try:
        await run
    except AppError as error:
        return error.reply()
    return None


def _crashed(job: Job) -> Reply:
    """What an app answers when it crashes, and what it logs. To be called where it is handled."""
    _log.exception("The runner of %s crashed in request %s", job.endpoint, job.request_id)
    job.log(encode({"traceback": traceback.format_exc()}).decode(), "ERROR")
    return internal_server_error()


class _Collector:
    """The ASGI ``send`` that keeps a reply, for the queue to hand out later."""

    def __init__(self) -> None:
        self._status = 0
        self._headers: RawHeaders = []
        self._chunks: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers: RawHeaders = message["headers"]
            self._headers = [pair for pair in headers if pair[0] not in _OF_THE_TRANSFER]
        elif message["type"] == "http.response.body":
            self._chunks.append(message.get("body", b""))

    def reply(self) -> Reply:
        return Reply(self._status, b"".join(self._chunks), self._headers)
