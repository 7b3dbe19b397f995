"""The ``send`` that a runner answers with, as strict as the server of a real app."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
from typing import TYPE_CHECKING

from fal_async.emulator._faults import runner_fault
from fal_async.emulator._json import encode
from fal_async.emulator._responses import (
    WITHOUT_BODY,
    AppError,
    Response,
    internal_server_error,
    request_error,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._responses import Message, RawHeaders, Send
    from fal_async.emulator._state import PlatformState

__all__ = []

_log = logging.getLogger("fal_async.emulator")


#: The statuses that end an exchange.
_FINAL = range(200, 600)


#: Troubles of the runner, which may be over at the next call.
_TEMPORARY = frozenset({503, 504})


_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")


class IncompleteResponseError(Exception):
    """The runner broke off in a response whose length it had announced."""


class StrictSend:
    """The ASGI ``send`` that a runner gets."""

    __slots__ = ("_ended", "_endpoint", "_has_body", "_job", "_remaining", "_send", "_started")

    def __init__(self, endpoint: Endpoint, job: Job, send: Send) -> None:
        self._endpoint = endpoint
        self._job = job
        self._send = send
        self._started = False
        self._ended = False
        self._has_body = True
        self._remaining: int | None = None  # of a body whose length was announced

    async def __call__(self, message: Message) -> None:
        """Send one message.

        Raises:
            RuntimeError: It has no place here, or nothing that can be sent in it.
        """
        kind: str = message["type"]
        if kind == "http.response.start" and not self._started:
            await self._start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self._started and not self._ended:
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} has no place here")

    async def end(self, substitute: Response | None) -> None:
        """Answer if there is no answer yet; bring one that was begun to its end.

        Raises:
            IncompleteReplyError: It cannot be ended properly.
        """
        if not self._started:
            await (substitute or internal_server_error()).send(self)
        elif self._remaining:
            raise IncompleteResponseError
        elif not self._ended:
            # Callers cannot tell a stream that broke off from one that ended: so it really is.
            await self._send_body(b"", more=False)

    async def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        pairs = [(name.lower(), value) for name, value in headers]
        check_head(status, pairs)
        self._has_body = status not in WITHOUT_BODY and self._job.method != "HEAD"
        if status in WITHOUT_BODY:
            pairs = [pair for pair in pairs if pair[0] != b"content-length"]
        names = dict(pairs)
        if self._has_body and b"content-length" in names:
            self._remaining = int(names[b"content-length"])
        pairs += self._more(status, names.keys())
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if not self._has_body:
            body = b""
        if self._remaining is not None:
            self._remaining -= len(body)
            if self._remaining < 0 or (self._remaining and not more):
                raise RuntimeError("the body is not as long as its content-length")
        self._ended = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _more(self, status: int, names: Iterable[bytes]) -> RawHeaders:
        more = [(b"x-fal-served-from", self._endpoint.served_from.encode("latin-1"))]
        if status < 300 and b"x-fal-billable-units" not in names:
            more.append((b"x-fal-billable-units", _units(self._job.billable_units)))
        if self._job.direct and status in _TEMPORARY and b"x-fal-needs-retry" not in names:
            more.append((b"x-fal-needs-retry", b"1"))
        return more


def check_head(status: int, headers: RawHeaders) -> None:
    """Find out whether a response may begin so.

    Raises:
        RuntimeError: No server could send it.
    """
    if status not in _FINAL:
        raise RuntimeError(f"{status} is no status of a response")
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise RuntimeError(f"the header {name!r} cannot be sent")


def _units(units: float) -> bytes:
    return b"%d" % units if units == int(units) else b"%.8f" % units


#: Headers that describe how a response was sent, not what it is.
_OF_THE_TRANSFER = frozenset({b"content-length", b"transfer-encoding", b"connection"})


async def execute(platform: PlatformState, endpoint: Endpoint, job: Job, send: Send) -> None:
    """Have the endpoint's runner answer a job.

    Raises:
        IncompleteReplyError: The answer began, and cannot be ended properly.
    """
    endpoint.counters.executions += 1
    job.executions += 1
    platform.record.notify()
    answer = StrictSend(endpoint, job, send)
    began = time.perf_counter()
    try:
        substitute = await _run(platform, endpoint, job, answer)
    finally:
        job.inference_time = time.perf_counter() - began
    await answer.end(substitute)


async def collect(platform: PlatformState, endpoint: Endpoint, job: Job) -> Response:
    """Have the endpoint's runner answer a job, and keep the answer."""
    collector = _Collector()
    try:
        await execute(platform, endpoint, job, collector)
    except IncompleteResponseError:
        return request_error("runner_incomplete_response", "The runner broke off in its response")
    return collector.response()


async def _run(
    platform: PlatformState, endpoint: Endpoint, job: Job, answer: Send
) -> Response | None:
    """Run the runner; says what to answer in its place if it gives no answer of its own."""
    limit = asyncio.timeout(endpoint.timeout)
    try:
        async with limit:
            response = await runner_fault(platform.faults, endpoint, job)
            if response is None:
                response = await _refusal(endpoint.runner(job, answer))
            if response is not None:
                check_head(response.status, response.headers)
            return response
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return _crashed(job)
    except (Exception, SystemExit, KeyboardInterrupt):  # noqa: BLE001 - an app ends only itself
        if limit.expired():
            return request_error("request_timeout", "Request timed out")
        return _crashed(job)


async def _refusal(run: Awaitable[None]) -> Response | None:
    """How a runner says no, if it does."""
    try:
        await run
    except AppError as error:
        return error.response()
    return None


def _crashed(job: Job) -> Response:
    """What an app answers when it crashes, and what it logs. To be called where it is handled."""
    _log.exception("The runner of %s crashed in request %s", job.endpoint, job.request_id)
    job.log(encode({"traceback": traceback.format_exc()}).decode(), "ERROR")
    return internal_server_error()


class _Collector:
    """The ASGI ``send`` that keeps a response, for the queue to hand out later."""

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

    def response(self) -> Response:
        return Response(self._status, b"".join(self._chunks), self._headers)
