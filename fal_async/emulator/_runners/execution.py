"""Runner execution and the strict ASGI `send`."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING

from fal_async.emulator._injection import runner_fault
from fal_async.emulator._responses import (
    WITHOUT_BODY,
    AppError,
    Response,
    internal_server_error,
    request_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fal_async.emulator._faults import Faults
    from fal_async.emulator._history import History
    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Recorder
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._responses import Message, RawHeaders, Send

#: The statuses of final responses.
_FINAL = range(200, 600)
#: The statuses after which a direct request may be retried.
_TEMPORARY = frozenset({503, 504})
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
#: Headers that describe the transfer of a response, not its content.
_TRANSFER_HEADERS = frozenset({b"content-length", b"transfer-encoding", b"connection"})


class IncompleteResponseError(Exception):
    """A runner's response is shorter than its ``content-length``."""


class Executor:
    """Executes jobs with the runners of their endpoints.

    Args:
        faults: The scripted faults, which may replace a run.
        recorder: Notified when a run starts.
        history: Records when a run starts.
    """

    def __init__(self, faults: Faults, recorder: Recorder, history: History) -> None:
        self._faults = faults
        self._recorder = recorder
        self._history = history

    async def execute(self, endpoint: Endpoint, job: Job, send: Send) -> None:
        """Run the endpoint's runner for a job, and send its response.

        Raises:
            IncompleteResponseError: The response has started and cannot be completed.
        """
        endpoint.counters.executions += 1
        job.executions += 1
        self._history.start(job)
        self._recorder.notify()
        strict_send = StrictSend(endpoint, job, send)
        started = time.perf_counter()
        try:
            fallback = await self._run(endpoint, job, strict_send)
        finally:
            job.inference_time = time.perf_counter() - started
        await strict_send.end(fallback)

    async def collect(self, endpoint: Endpoint, job: Job) -> Response:
        """Run the endpoint's runner for a job, and return its response."""
        response = Response(0, b"", [])
        chunks: list[bytes] = []

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: RawHeaders = message["headers"]
                response.status = message["status"]
                response.headers = [pair for pair in headers if pair[0] not in _TRANSFER_HEADERS]
            elif message["type"] == "http.response.body":
                chunks.append(message.get("body", b""))

        try:
            await self.execute(endpoint, job, send)
        except IncompleteResponseError:
            return request_error(
                "runner_incomplete_response", "The runner's response is incomplete"
            )
        response.body = b"".join(chunks)
        return response

    async def _run(self, endpoint: Endpoint, job: Job, send: Send) -> Response | None:
        """Run the runner. Return the response to send if the runner did not send one."""
        timeout = asyncio.timeout(endpoint.timeout)
        try:
            async with timeout:
                response = await runner_fault(self._faults, endpoint, job)
                if response is None:
                    try:
                        await endpoint.runner(job, send)
                    except AppError as error:
                        response = error.response()
                if response is not None:
                    check_head(response.status, response.headers)
                return response
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            job._report_crash(error)
            return internal_server_error()
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - apps may raise any
            if timeout.expired():
                return request_error("request_timeout", "Request timed out")
            job._report_crash(error)
            return internal_server_error()


class StrictSend:
    """The ASGI ``send`` of a runner, which checks messages as the server of a real app does."""

    __slots__ = ("_ended", "_endpoint", "_has_body", "_job", "_remaining", "_send", "_started")

    def __init__(self, endpoint: Endpoint, job: Job, send: Send) -> None:
        self._endpoint = endpoint
        self._job = job
        self._send = send
        self._started = False
        self._ended = False
        self._has_body = True
        self._remaining: int | None = None  # of a body with a content-length

    async def __call__(self, message: Message) -> None:
        """Send one message.

        Raises:
            RuntimeError: The message is unexpected, or its content is not valid.
        """
        kind: str = message["type"]
        if kind == "http.response.start" and not self._started:
            await self._send_start(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self._started and not self._ended:
            await self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")

    async def end(self, fallback: Response | None) -> None:
        """Send a response if none has started; complete one that has.

        Args:
            fallback: The response to send if none has started. ``None`` for a server error.

        Raises:
            IncompleteResponseError: The response cannot be completed.
        """
        if not self._started:
            await (fallback or internal_server_error()).send(self)
        elif self._remaining:
            raise IncompleteResponseError
        elif not self._ended:
            # A stream without content-length that fails looks complete to callers.
            await self._send_body(b"", more=False)

    async def _send_start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        pairs = [(name.lower(), value) for name, value in headers]
        check_head(status, pairs)
        self._has_body = status not in WITHOUT_BODY and self._job.method != "HEAD"
        if status in WITHOUT_BODY:
            pairs = [pair for pair in pairs if pair[0] != b"content-length"]
        names = dict(pairs)
        if self._has_body and b"content-length" in names:
            self._remaining = int(names[b"content-length"])
        pairs.append((b"x-fal-served-from", self._endpoint.served_from.encode("latin-1")))
        if status < 300 and b"x-fal-billable-units" not in names:
            units = self._job.billable_units
            text = b"%d" % units if units == int(units) else b"%.8f" % units
            pairs.append((b"x-fal-billable-units", text))
        if self._job.direct and status in _TEMPORARY and b"x-fal-needs-retry" not in names:
            pairs.append((b"x-fal-needs-retry", b"1"))
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        if not self._has_body:
            body = b""
        if self._remaining is not None:
            self._remaining -= len(body)
            if self._remaining < 0 or (self._remaining and not more):
                raise RuntimeError("the length of the body must match its content-length")
        self._ended = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def check_head(status: int, headers: RawHeaders) -> None:
    """Check the status and headers of a response.

    Raises:
        RuntimeError: No server could send them.
    """
    if status not in _FINAL:
        raise RuntimeError(f"status must be from 200 to 599, got {status}")
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise RuntimeError(f"header {name!r} must have a valid name and value, got {value!r}")
