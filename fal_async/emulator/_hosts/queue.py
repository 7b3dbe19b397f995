"""``queue.fal.run``: submit, status, status stream, result, cancel."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TYPE_CHECKING, Any, cast

from fal_async.emulator._hosts.base import Call, authenticate, authorize, new_job, parse_called_id
from fal_async.emulator._json import encode
from fal_async.emulator._options import is_true, max_queue_length, start_timeout
from fal_async.emulator._responses import (
    RejectedError,
    error_response,
    json_response,
    method_not_allowed,
    not_found,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._responses import Response
    from fal_async.emulator._state import PlatformState
    from fal_async.types import LogLine

#: What may follow ``/requests/{id}``, and what it asks for.
_ROUTES: dict[tuple[str, ...], Route] = {
    (): "result",
    ("response",): "result",
    ("status",): "status",
    ("status", "stream"): "status_stream",
    ("cancel",): "cancel",
}
_METHODS: dict[Route, str] = {
    "submit": "POST",
    "status": "GET",
    "status_stream": "GET",
    "result": "GET",
    "cancel": "PUT",
}
#: What a header can say of an id that a client made up.
_REQUEST_ID = re.compile(r"[!-~]+")
_CANCELLED = 499
_SERVER_ERROR = 500
_CANCEL_STATUS = {"OK": 200, "CANCELLATION_REQUESTED": 202, "ALREADY_COMPLETED": 400}
_SSE = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


class QueueHost:
    """Answers calls of ``queue.fal.run``."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform
        self._answers: dict[Route, Callable[[GatewayRequest, Call], Awaitable[None]]] = {
            "submit": self._submit,
            "status": self._status,
            "status_stream": self._status_stream,
            "result": self._result,
            "cancel": self._cancel,
        }

    def call(self, exchange: GatewayRequest) -> Call:
        """A question about a job if the path ends as those do, else a submit."""
        path = exchange.location.path
        segments = path.split("/")
        for tail, route in _ROUTES.items():
            at = len(segments) - len(tail) - 2
            if at > 0 and segments[at] == "requests" and tuple(segments[at + 2 :]) == tail:
                return Call(route, parse_called_id("/".join(segments[:at])), segments[at + 1])
        return Call("submit", parse_called_id(path))

    async def answer(self, exchange: GatewayRequest, call: Call) -> None:
        """Do what is asked for."""
        method = _METHODS[call.route]
        if exchange.method != method:
            raise RejectedError(method_not_allowed(method))
        await self._answers[call.route](exchange, call)

    async def _submit(self, exchange: GatewayRequest, call: Call) -> None:
        exchange.request_id = request_id = str(uuid.uuid4())
        target = authorize(self._platform, exchange, call)
        scheduler = self._platform.scheduler
        seconds = start_timeout(exchange.headers)
        most = max_queue_length(exchange.parameters)
        if most is not None and scheduler.queue_length(target.endpoint) > most:
            text = f"More than {most} requests already wait for {target.endpoint.id}"
            raise RejectedError(error_response(429, text, {"x-fal-needs-retry": "1"}))
        job = new_job(self._platform, exchange, call, target, request_id=request_id, direct=False)
        self._platform.jobs.add(job)
        ahead = scheduler.submit(job, target.endpoint, seconds)
        accepted = {
            "status": "IN_QUEUE",
            **_job_urls(exchange, job),
            "gateway_request_id": request_id,
            "queue_position": ahead,
        }
        await exchange.response(json_response(200, accepted))

    async def _status(self, exchange: GatewayRequest, call: Call) -> None:
        job = self._job(exchange, call)
        logs = None
        if _wants_logs(exchange):
            window = self._platform.settings.log_window
            logs = _visible_logs(job, job.logs if window is None else job.logs[-window:])
        body = self._status_of(exchange, job, logs)
        await exchange.response(json_response(200 if job.status == "COMPLETED" else 202, body))

    async def _status_stream(self, exchange: GatewayRequest, call: Call) -> None:
        job = self._job(exchange, call)
        with_logs = _wants_logs(exchange)
        await exchange({"type": "http.response.start", "status": 200, "headers": _SSE})
        told: dict[str, Any] = {}
        lines_told = 0
        while not exchange.connection.is_closed:
            change = job.watch()
            lines = job.logs[lines_told:] if with_logs else []
            now = self._status_of(exchange, job, None)
            if now != told or lines:
                told, lines_told = now, lines_told + len(lines)
                event = {**now, "logs": _visible_logs(job, lines)} if with_logs else now
                await _send(exchange, b"data: " + encode(event) + b"\n\n")
            if now["status"] == "COMPLETED":
                break
            if not await self._changed(exchange, change):
                await _send(exchange, b": keep-alive\n\n")
        await exchange({"type": "http.response.body", "body": b""})

    async def _changed(self, exchange: GatewayRequest, change: asyncio.Future[bool]) -> bool:
        """Wait for a change, or for the time to show that the stream is alive."""

        def wake(*, changed: bool) -> None:
            if not change.done():
                change.set_result(changed)

        loop = asyncio.get_running_loop()
        alarm = loop.call_later(self._platform.settings.keep_alive, lambda: wake(changed=False))
        with exchange.connection.on_disconnect(lambda: wake(changed=True)):
            try:
                return await change
            finally:
                alarm.cancel()

    async def _result(self, exchange: GatewayRequest, call: Call) -> None:
        job = self._job(exchange, call)
        if job.response is None:
            raise RejectedError(error_response(400, "Request is still in progress"))
        await exchange.response(job.response)

    async def _cancel(self, exchange: GatewayRequest, call: Call) -> None:
        answer = self._platform.scheduler.cancel(self._job(exchange, call))
        await exchange.response(json_response(_CANCEL_STATUS[answer], {"status": answer}))

    def _job(self, exchange: GatewayRequest, call: Call) -> Job:
        """The job that is asked about, for those who may know of it."""
        if _REQUEST_ID.fullmatch(call.job_id or ""):
            exchange.request_id = call.job_id
        job = self._platform.jobs.get(call.job_id or "")
        target = self._platform.registry.resolve(job.endpoint if job else str(call.called))
        authenticate(self._platform, exchange, call, target)
        if job is None or job.app != call.called.app:
            raise RejectedError(not_found())
        return job

    def _status_of(
        self, exchange: GatewayRequest, job: Job, logs: Sequence[LogLine] | None
    ) -> dict[str, Any]:
        status: dict[str, Any] = {"status": job.status, **_job_urls(exchange, job), "logs": logs}
        status["metrics"] = {}
        if job.status == "IN_QUEUE":
            status["queue_position"] = self._platform.scheduler.position(job)
        elif job.status == "COMPLETED":
            status["metrics"] = {"inference_time": job.inference_time}
            status |= {} if job.response is None else _failure(job.response)
        return status


def _visible_logs(job: Job, lines: Sequence[LogLine]) -> Sequence[LogLine] | None:
    """Log lines as a status has them: those of a job that has not begun are null, not empty."""
    return None if job.status == "IN_QUEUE" and not lines else lines


def _failure(response: Response) -> dict[str, str]:
    """What a status tells of a failure of platform or runner; of refused inputs, nothing."""
    error_type = response.error_type
    if error_type is None and response.status == _CANCELLED:
        error_type = "client_cancelled"
    if error_type is None and response.status < _SERVER_ERROR:
        return {}
    body = response.json()
    text: object = cast("dict[str, object]", body).get("detail") if isinstance(body, dict) else None
    return {
        "error": text
        if text and isinstance(text, str)
        else f"Invalid status code: {response.status}",
        "error_type": error_type or "runner_server_error",
    }


def _wants_logs(exchange: GatewayRequest) -> bool:
    return is_true(exchange.parameters.get("logs", ""))


def _job_urls(exchange: GatewayRequest, job: Job) -> dict[str, str]:
    """What the job is called, and where it is found, in the style in which the client came."""
    url = f"{exchange.location.base}/{job.app}/requests/{job.request_id}"
    return {
        "request_id": job.request_id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
    }


async def _send(exchange: GatewayRequest, body: bytes) -> None:
    await exchange({"type": "http.response.body", "body": body, "more_body": True})
