"""One run of a runner: whatever the runner does, an answer comes out."""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import TYPE_CHECKING

import orjson

from fal_async.emulator._errors import AppError
from fal_async.emulator._mishaps import runner_trouble
from fal_async.emulator._replies import Reply, internal_server_error, request_error

if TYPE_CHECKING:
    from fal_async.emulator._job import Job
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._replies import Message, RawHeaders, Send

#: Headers that describe how a reply was sent, not what it is.
_OF_THE_TRANSFER = frozenset({b"content-length", b"transfer-encoding", b"connection"})
#: Troubles of the runner, which may be over at the next call.
_TEMPORARY = frozenset({503, 504})


class IncompleteReplyError(Exception):
    """The runner broke off in a reply whose length it had announced."""


async def execute(platform: Platform, endpoint: Endpoint, job: Job, send: Send) -> None:
    """Have the endpoint's runner answer a job.

    Raises:
        IncompleteReplyError: The answer began, and cannot be ended properly.
    """
    endpoint.counters.executions += 1
    job.executions += 1
    platform.record.ring()
    answer = _Answer(endpoint, job, send)
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
            trouble = await runner_trouble(platform.faults, endpoint, job)
            if trouble is None:
                await endpoint.runner(job, answer)
            return trouble
    except AppError as error:
        return error.reply()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return _crashed(job)
    except Exception:  # noqa: BLE001 - what an app raises is for the platform to answer
        if limit.expired():
            return request_error("request_timeout", "Request timed out")
        return _crashed(job)


def _crashed(job: Job) -> Reply:
    """What an app answers when it crashes, and what it logs. To be called where it is handled."""
    job.log(orjson.dumps({"traceback": traceback.format_exc()}).decode(), "ERROR")
    return internal_server_error()


class _Answer:
    """The ASGI ``send`` that a runner gets."""

    __slots__ = ("_ended", "_endpoint", "_is_sized", "_job", "_send", "_started")

    def __init__(self, endpoint: Endpoint, job: Job, send: Send) -> None:
        self._endpoint = endpoint
        self._job = job
        self._send = send
        self._started = False
        self._ended = False
        self._is_sized = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            headers: RawHeaders = [(name.lower(), value) for name, value in message["headers"]]
            names = {name for name, _ in headers}
            self._is_sized = b"content-length" in names
            message = {**message, "headers": headers + self._more(message["status"], names)}
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def end(self, substitute: Reply | None) -> None:
        """Answer if there is no answer yet; bring one that was begun to its end."""
        if not self._started:
            await (substitute or internal_server_error()).send(self)
        elif not self._ended and self._is_sized:
            raise IncompleteReplyError
        elif not self._ended:
            # Callers cannot tell a stream that broke off from one that ended: so it really is.
            await self({"type": "http.response.body", "body": b""})

    def _more(self, status: int, names: set[bytes]) -> RawHeaders:
        more = [(b"x-fal-served-from", self._endpoint.served_from.encode("latin-1"))]
        if status < 300 and b"x-fal-billable-units" not in names:
            more.append((b"x-fal-billable-units", _units(self._job.billable_units)))
        if self._job.direct and status in _TEMPORARY and b"x-fal-needs-retry" not in names:
            more.append((b"x-fal-needs-retry", b"1"))
        return more


def _units(units: float) -> bytes:
    return b"%d" % units if units == int(units) else b"%.8f" % units


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
