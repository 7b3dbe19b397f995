"""``queue.fal.run``: submit, status, status stream, result, cancel."""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async.emulator._hosts.base import (
    Call,
    authenticate,
    authorize,
    find_account,
    make_job,
    parse_called_id,
)
from fal_async.emulator._json import encode
from fal_async.emulator._options import (
    parse_flag,
    parse_max_queue_length,
    parse_start_timeout,
    parse_webhook_url,
)
from fal_async.emulator._responses import (
    EVENT_STREAM_TYPE,
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

#: Routes by the path after ``/requests/{id}``.
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
#: A request id that a header can carry; clients may send any.
_REQUEST_ID = re.compile(r"[!-~]+")
_CANCELLED: Final = 499
_SERVER_ERROR: Final = 500
_CANCEL_STATUS = {"OK": 200, "CANCELLATION_REQUESTED": 202, "ALREADY_COMPLETED": 400}
_STREAM_HEADERS = [EVENT_STREAM_TYPE, (b"cache-control", b"no-cache")]


class QueueHost:
    """Handles requests to ``queue.fal.run``."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform
        self._handlers: dict[Route, Callable[[GatewayRequest, Call], Awaitable[None]]] = {
            "submit": self.submit,
            "status": self.status,
            "status_stream": self.stream_status,
            "result": self.result,
            "cancel": self.cancel,
        }

    def classify(self, request: GatewayRequest) -> Call:
        """Classify a request by the end of its path. All other paths are submits."""
        path = request.location.path
        segments = path.split("/")
        for tail, route in _ROUTES.items():
            index = len(segments) - len(tail) - 2
            if index > 0 and segments[index] == "requests" and tuple(segments[index + 2 :]) == tail:
                called = parse_called_id("/".join(segments[:index]))
                return Call(route, called, segments[index + 1])
        return Call("submit", parse_called_id(path))

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        """Process a request."""
        method = _METHODS[call.route]
        if request.method != method:
            raise RejectedError(method_not_allowed(method))
        await self._handlers[call.route](request, call)

    async def submit(self, request: GatewayRequest, call: Call) -> None:
        """Submit a job."""
        request.request_id = request_id = str(uuid.uuid4())
        target = authorize(self._platform, request, call)
        scheduler = self._platform.scheduler
        start_timeout = parse_start_timeout(request.headers)
        webhook_url = parse_webhook_url(request.parameters)
        max_length = parse_max_queue_length(request.parameters)
        if max_length is not None and scheduler.queue_length(target.endpoint) > max_length:
            text = f"More than {max_length} requests already wait for {target.endpoint.id}"
            raise RejectedError(error_response(429, text, {"x-fal-needs-retry": "1"}))
        job = make_job(self._platform, request, call, target, request_id=request_id, direct=False)
        self._platform.jobs.add(job)
        self._platform.history.add(job)
        if webhook_url is not None:
            self._platform.webhooks.add(job, target.endpoint, webhook_url)
        position = scheduler.submit(job, target.endpoint, start_timeout)
        accepted = {
            "status": "IN_QUEUE",
            **_job_urls(request, job),
            "gateway_request_id": request_id,
            "queue_position": position,
        }
        await request.respond(json_response(200, accepted))

    async def status(self, request: GatewayRequest, call: Call) -> None:
        """Send the status of a job."""
        job = self._find_job(request, call)
        logs = None
        if _with_logs(request):
            window = self._platform.settings.log_window
            logs = _visible_logs(job, job.logs if window is None else job.logs[-window:])
        body = self._make_status(request, job, logs)
        await request.respond(json_response(200 if job.status == "COMPLETED" else 202, body))

    async def stream_status(self, request: GatewayRequest, call: Call) -> None:
        """Send the status of a job whenever it changes, until it has completed."""
        job = self._find_job(request, call)
        with_logs = _with_logs(request)
        await request.send(
            {"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS}
        )
        sent: dict[str, Any] = {}
        lines_sent = 0
        while not request.connection.is_closed:
            change = job._wait_for_change()
            lines = job.logs[lines_sent:] if with_logs else []
            status = self._make_status(request, job, None)
            if status != sent or lines:
                sent, lines_sent = status, lines_sent + len(lines)
                event = {**status, "logs": _visible_logs(job, lines)} if with_logs else status
                await _send_chunk(request, b"data: " + encode(event) + b"\n\n")
            if status["status"] == "COMPLETED":
                break
            if not await self._wait(request, change):
                await _send_chunk(request, b": keep-alive\n\n")
        await request.send({"type": "http.response.body", "body": b""})

    async def result(self, request: GatewayRequest, call: Call) -> None:
        """Send the response of a completed job."""
        job = self._find_job(request, call)
        if job.response is None:
            raise RejectedError(error_response(400, "Request is still in progress"))
        await request.respond(job.response)

    async def cancel(self, request: GatewayRequest, call: Call) -> None:
        """Cancel a job."""
        status = self._platform.scheduler.cancel(self._find_job(request, call))
        await request.respond(json_response(_CANCEL_STATUS[status], {"status": status}))

    async def _wait(self, request: GatewayRequest, change: asyncio.Future[bool]) -> bool:
        """Wait for a change. Return False if a keep-alive comment is due before."""

        def wake(*, changed: bool) -> None:
            if not change.done():
                change.set_result(changed)

        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._platform.settings.keep_alive, lambda: wake(changed=False))
        with request.connection.on_disconnect(lambda: wake(changed=True)):
            try:
                return await change
            finally:
                timer.cancel()

    def _find_job(self, request: GatewayRequest, call: Call) -> Job:
        """Return the job of a request, and check the credentials."""
        if _REQUEST_ID.fullmatch(call.job_id or ""):
            request.request_id = call.job_id
        job = self._platform.jobs.get(call.job_id or "")
        target = self._platform.registry.resolve(job.endpoint if job else str(call.called))
        authenticate(self._platform, request, call, target)
        user_id = find_account(self._platform, request).user_id
        if job is None or job.app != call.called.app or job.user_id != user_id:
            raise RejectedError(not_found())
        return job

    def _make_status(
        self, request: GatewayRequest, job: Job, logs: Sequence[LogLine] | None
    ) -> dict[str, Any]:
        status: dict[str, Any] = {"status": job.status, **_job_urls(request, job), "logs": logs}
        status["metrics"] = {}
        if job.status == "IN_QUEUE":
            status["queue_position"] = self._platform.scheduler.position(job)
        elif job.status == "COMPLETED":
            status["metrics"] = {"inference_time": job.inference_time}
            status |= {} if job.response is None else _make_error(job.response)
        return status


def _visible_logs(job: Job, lines: Sequence[LogLine]) -> Sequence[LogLine] | None:
    """Return log lines as a status shows them: null, not empty, before the job has started."""
    return None if job.status == "IN_QUEUE" and not lines else lines


def _make_error(response: Response) -> dict[str, str]:
    """Return the error fields of a status: for server errors, but not for invalid input."""
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


def _with_logs(request: GatewayRequest) -> bool:
    return parse_flag(request.parameters.get("logs", ""))


def _job_urls(request: GatewayRequest, job: Job) -> dict[str, str]:
    """Return the request id and the URLs of a job, in the form that the client uses."""
    url = f"{request.location.base}/{job.app}/requests/{job.request_id}"
    return {
        "request_id": job.request_id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
    }


async def _send_chunk(request: GatewayRequest, body: bytes) -> None:
    await request.send({"type": "http.response.body", "body": body, "more_body": True})
