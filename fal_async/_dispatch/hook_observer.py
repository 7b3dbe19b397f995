"""`HookObserver`: the steps of one call as events for hooks.

It loads when the first call with hooks starts, since the events take time to import.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

from fal_async._core.hooks import log_failures
from fal_async._dispatch.async_hooks import run_later
from fal_async._dispatch.call_observer import CallObserver
from fal_async._dispatch.call_state import use_call_state
from fal_async._protocol.retry import NetworkFailure
from fal_async.errors import FalClientTimeoutError
from fal_async.hooks import (
    AttemptFailed,
    AttemptStarted,
    Call,
    CallEnded,
    CallStarted,
    DownloadProgress,
    ResponseStarted,
    RetryScheduled,
    SlotAcquired,
    StatusChanged,
    StreamEventReceived,
    UploadProgress,
    WaitingForSlot,
)
from fal_async.hooks._logging import log_event
from fal_async.types import Completed, InProgress, Queued

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._core.status import Status
    from fal_async._http.response import StreamedResponse
    from fal_async._protocol.operation import Operation
    from fal_async._protocol.response import Response
    from fal_async.hooks import Event, Hook, Outcome

__all__ = ["HookObserver"]

_call_ids = count(1)


@dataclass(slots=True)
class _Attempt:
    """The last attempt of an operation.

    Attributes:
        request: The number of the request within the call.
        number: The number of the attempt of the operation.
        started: Its start, on the monotonic clock.
        is_final: Whether its response ended the operation, unless a retry follows.
    """

    request: int
    number: int
    started: float
    is_final: bool = False


class HookObserver(CallObserver):
    """Reports the steps of a call to hooks, and sums them up for `CallEnded`.

    Args:
        hooks: The hooks.
        name: The name of the method.
        application: The endpoint id; empty without one.
        request_id: The id of the job that the call is made for; ``None`` without one.
        traceparent: The trace context of the submission of that job; ``None`` if unknown.
        logs: Whether the events are logged as well.
    """

    def __init__(
        self,
        hooks: tuple[Hook, ...],
        name: str,
        application: str,
        request_id: str | None,
        traceparent: str | None,
        *,
        logs: bool,
    ) -> None:
        if logs:
            hooks = (*hooks, log_event)
        self.call = Call(
            id=next(_call_ids),
            name=name,
            application=application,
            request_id=request_id,
            traceparent=traceparent,
        )
        self._hooks = hooks
        self._started_at = monotonic()
        self._ended = False
        self._job_id = request_id
        self._request_id: str | None = None
        self._status: Status | None = None
        self._attempts: dict[int, _Attempt] = {}  # by operation
        self._requests = self._retries = self._events = 0
        self._sent = self._received = 0
        self._waited = 0.0
        self._queued: float | None = None
        self._running: float | None = None
        self._in_queue: float | None = None
        self._in_run: float | None = None
        self._units: float | None = None
        self._files: dict[int, tuple[str | None, int | None, int]] = {}  # name, size and position
        self._emit(CallStarted(call=self.call))

    def __del__(self) -> None:
        self.end(None, closed=True)  # a stream that was dropped

    @property
    def traceparent(self) -> str | None:  # type: ignore[override]  # read when it is needed
        """The trace context of the call; ``None`` without a hook that has one."""
        found = self._call_tracing_hooks("traceparent", self.call)
        return next((value for value in found if isinstance(value, str)), None)

    def trace_headers(self) -> Mapping[str, str]:
        """Return the trace headers, if a hook propagates them to the app."""
        if not any(self._call_tracing_hooks("propagates_to", self.call.application)):
            return {}
        traceparent = self.traceparent
        return {} if traceparent is None else {"traceparent": traceparent}

    def wait_for_slot(self, limit: str) -> None:
        """Report the wait."""
        self._emit(WaitingForSlot(call=self.call, limit=limit))

    def acquire_slot(self, limit: str, seconds: float) -> None:
        """Report the end of the wait."""
        self._waited += seconds
        self._emit(SlotAcquired(call=self.call, limit=limit, seconds=seconds))

    def start_attempt(self, operation: Operation[Any], url: str) -> None:
        """Report the attempt."""
        self._requests += 1
        last = self._attempts.get(id(operation))
        number = 1 if last is None or last.is_final else last.number + 1
        attempt = _Attempt(self._requests, number, monotonic())
        self._attempts[id(operation)] = attempt
        content = operation.request.content
        self._sent += len(content) if isinstance(content, bytes) else content.size
        host, port = _address(url.partition("://")[2].partition("/")[0])
        self._emit(
            AttemptStarted(
                call=self.call,
                operation=operation.name,
                request=attempt.request,
                attempt=attempt.number,
                method=operation.request.method,
                host=host,
                port=port,
            )
        )

    def start_response(self, operation: Operation[Any], response: StreamedResponse) -> None:
        """Report the response."""
        request_id = response.headers.get("x-fal-request-id")
        self._request_id = request_id or self._request_id
        attempt = self._last_attempt(operation)
        self._emit(
            ResponseStarted(
                call=self.call,
                operation=operation.name,
                request=attempt.request,
                attempt=attempt.number,
                status_code=response.status_code,
                request_id=request_id,
                seconds=monotonic() - attempt.started,
            )
        )

    def fail_attempt(self, operation: Operation[Any], failure: NetworkFailure) -> None:
        """Report the failure."""
        attempt = self._last_attempt(operation)
        self._emit(
            AttemptFailed(
                call=self.call,
                operation=operation.name,
                request=attempt.request,
                attempt=attempt.number,
                reason=failure.reason,
                sent=failure.sent,
                seconds=monotonic() - attempt.started,
            )
        )

    def receive(self, operation: Operation[Any], response: Response) -> None:
        """Count the body, and keep what `CallEnded` reports of the headers."""
        self._last_attempt(operation).is_final = True
        self._received += len(response.body)
        if operation.name == "submit" and response.ok:
            self._queued = monotonic()
        if (units := response.billable_units) is not None:
            self._units = units

    def receive_bytes(self, count: int) -> None:
        """Count the bytes."""
        self._received += count

    def schedule_retry(
        self, operation: Operation[Any], delay: float, outcome: Response | NetworkFailure
    ) -> None:
        """Report the retry."""
        self._retries += 1
        attempt = self._last_attempt(operation)
        attempt.is_final = False
        self._emit(
            RetryScheduled(
                call=self.call,
                operation=operation.name,
                attempt=attempt.number,
                delay=delay,
                reason=outcome.reason
                if isinstance(outcome, NetworkFailure)
                else str(outcome.status_code),
            )
        )

    def change_status(self, request_id: str, status: Status) -> None:
        """Report the status, and measure the time in the queue and of the run."""
        if status == self._status:  # polls with an interval repeat statuses
            return
        now = monotonic()
        self._status, self._job_id = status, request_id
        if isinstance(status, Queued):
            self._queued = self._queued or now
        elif isinstance(status, InProgress) and self._queued is not None and self._in_queue is None:
            self._in_queue, self._running = now - self._queued, now
        if isinstance(status, Completed):
            seconds = (status.metrics or {}).get("inference_time")
            if isinstance(seconds, int | float):
                self._in_run = float(seconds)
            elif self._running is not None:
                self._in_run = now - self._running
        self._emit(StatusChanged(call=self.call, request_id=request_id, status=status))

    def receive_event(self) -> None:
        """Report the event."""
        self._events += 1
        self._emit(StreamEventReceived(call=self.call, count=self._events))

    def start_upload(self, name: str | None, size: int | None) -> int:
        """Report the file, and return its number."""
        file = len(self._files) + 1
        self._files[file] = name, size, 0
        self.advance_upload(file, 0)
        return file

    def advance_upload(self, file: int, sent: int) -> None:
        """Report the position."""
        name, size, _ = self._files[file]
        self._files[file] = name, size, sent
        self._emit_upload(file, complete=False)

    def complete_upload(self, file: int) -> None:
        """Report the end of the upload."""
        self._emit_upload(file, complete=True)

    def _emit_upload(self, file: int, *, complete: bool) -> None:
        name, size, sent = self._files[file]
        self._emit(
            UploadProgress(
                call=self.call, file=file, name=name, sent=sent, size=size, complete=complete
            )
        )

    def advance_download(
        self, url: str, received: int, size: int | None, *, complete: bool
    ) -> None:
        """Report the position."""
        url = url.partition("?")[0]
        self._emit(
            DownloadProgress(
                call=self.call, url=url, received=received, size=size, complete=complete
            )
        )

    def end(self, error: BaseException | None, *, closed: bool = False) -> None:
        """Report the end of the call, once."""
        if self._ended:
            return
        self._ended = True
        request_id: str | None = self._job_id or self._request_id
        request_id = request_id or getattr(error, "request_id", None)
        self._emit(
            CallEnded(
                call=self.call,
                outcome="closed" if closed else _outcome(error),
                error=error,
                request_id=request_id,
                attempts=self._requests,
                retries=self._retries,
                events=self._events,
                bytes_sent=self._sent,
                bytes_received=self._received,
                seconds=monotonic() - self._started_at,
                seconds_in_slot=self._waited,
                seconds_in_queue=self._in_queue,
                seconds_in_run=self._in_run,
                billable_units=self._units,
            )
        )

    def _last_attempt(self, operation: Operation[Any]) -> _Attempt:
        attempt = self._attempts.get(id(operation))
        if attempt is None:
            attempt = self._attempts[id(operation)] = _Attempt(self._requests, 1, monotonic())
        return attempt

    def _emit(self, event: Event) -> None:
        with use_call_state(None):  # calls of hooks are no part of this call
            for hook in self._hooks:
                with log_failures(hook):
                    outcome = hook(event)
                    if outcome is not None and inspect.isawaitable(outcome):
                        run_later(hook, outcome)

    def _call_tracing_hooks(self, method: str, argument: object) -> list[Any]:
        """Call a method of `TracingHook` of each hook that has it."""
        found: list[Any] = []
        for hook in self._hooks:
            with log_failures(hook):
                if (function := getattr(hook, method, None)) is not None:
                    found.append(function(argument))
        return found


@lru_cache(maxsize=64)
def _address(netloc: str) -> tuple[str, int | None]:
    parts = urlsplit(f"//{netloc}")
    return parts.hostname or "", parts.port


def _outcome(error: BaseException | None) -> Outcome:
    if error is None:
        return "succeeded"
    if isinstance(error, FalClientTimeoutError):
        return "timed_out"
    if isinstance(error, GeneratorExit):
        return "closed"
    return "cancelled" if isinstance(error, anyio.get_cancelled_exc_class()) else "failed"
