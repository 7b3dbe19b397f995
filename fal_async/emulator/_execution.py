"""One run of a runner: whatever the runner does, an answer comes out."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

import orjson

from fal_async.emulator._errors import AppError
from fal_async.emulator._faults import strike_delay
from fal_async.emulator._record import RecordedRequest
from fal_async.emulator._replies import Reply, detail, request_error

if TYPE_CHECKING:
    from fal_async.emulator._faults import Faults
    from fal_async.emulator._job import Job
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._replies import Message, RawHeaders, Send

#: What describes the reply of the runner to the gateway only.
_HOP_BY_HOP = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})


class IncompleteReplyError(Exception):
    """The runner broke off in a reply whose length it had announced."""


async def execute(platform: Platform, endpoint: Endpoint, job: Job, send: Send) -> None:
    """Have the endpoint's runner answer a job.

    Raises:
        IncompleteReplyError: The answer began, and cannot be ended properly.
    """
    counters = endpoint.counters
    counters.executions += 1
    job.executions += 1
    platform.record.ring()
    answer = _Answer(endpoint, job, send)
    began = time.perf_counter()
    try:
        if (trouble := await runner_trouble(platform.faults, endpoint, job)) is not None:
            await answer.end(trouble)
        else:
            await endpoint.runner(job, answer)
            await answer.end()
    except AppError as error:
        await answer.end(error.reply())
    except Exception:  # noqa: BLE001 - a crash of the app is an answer of the platform
        job.log(orjson.dumps({"traceback": traceback.format_exc()}).decode(), "ERROR")
        await answer.end()
    finally:
        job.inference_time = time.perf_counter() - began


async def runner_trouble(faults: Faults, endpoint: Endpoint, job: Job) -> Reply | None:
    """The answer of a runner that is scripted to fail, if it is."""
    if not faults.pending:
        return None
    call = RecordedRequest(
        route="runner",
        endpoint=job.endpoint,
        method=job.method,
        host="run",
        path=job.path,
        query=job.query,
        headers=job.headers,
        body=job.body,
        request_id=job.request_id,
    )
    fault = faults.strike(call, (endpoint.id, job.endpoint))
    if fault is None:
        return None
    await strike_delay(fault)
    if fault.breaks_off:
        return request_error("runner_disconnected", "The runner broke off")
    return fault.reply()


class _Answer:
    """The ASGI ``send`` that a runner gets."""

    __slots__ = ("_ended", "_endpoint", "_job", "_send", "_sized", "_started")

    def __init__(self, endpoint: Endpoint, job: Job, send: Send) -> None:
        self._endpoint = endpoint
        self._job = job
        self._send = send
        self._started = False
        self._ended = False
        self._sized = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            headers: RawHeaders = [(name.lower(), value) for name, value in message["headers"]]
            self._sized = any(name == b"content-length" for name, _ in headers)
            message = {**message, "headers": headers + self._more(message["status"], headers)}
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def end(self, refusal: Reply | None = None) -> None:
        """Answer if there is no answer yet; bring one that was begun to its end."""
        if not self._started:
            await (refusal or detail(500, "Internal Server Error")).send(self)
        elif not self._ended and self._sized:
            raise IncompleteReplyError
        elif not self._ended:
            # Callers cannot tell a stream that broke off from one that ended: so it is on the real platform.
            await self({"type": "http.response.body", "body": b""})

    def _more(self, status: int, headers: RawHeaders) -> RawHeaders:
        more = [(b"x-fal-served-from", self._endpoint.served_from.encode("latin-1"))]
        charged = any(name == b"x-fal-billable-units" for name, _ in headers)
        if status < 300 and not charged:
            units = 1 if self._job.billable_units is None else self._job.billable_units
            more.append(
                (b"x-fal-billable-units", b"%d" % units if units == int(units) else b"%.8f" % units)
            )
        return more


class Collector:
    """The ASGI ``send`` that keeps a reply, for the queue to hand out later."""

    def __init__(self) -> None:
        self._status = 0
        self._headers: RawHeaders = []
        self._chunks: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [pair for pair in message["headers"] if pair[0] not in _HOP_BY_HOP]
        elif message["type"] == "http.response.body":
            self._chunks.append(message.get("body", b""))

    def reply(self) -> Reply:
        """The whole reply."""
        return Reply(self._status, b"".join(self._chunks), self._headers)


async def collect(platform: Platform, endpoint: Endpoint, job: Job) -> Reply:
    """Have the endpoint's runner answer a job of the queue."""
    collector = Collector()
    try:
        await execute(platform, endpoint, job, collector)
    except IncompleteReplyError:
        return request_error("runner_incomplete_response", "The runner broke off in its reply")
    return collector.reply()
