"""`CallSpans`: the span of a call, and the spans of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fal_async.hooks import (
    AttemptFailed,
    AttemptStarted,
    CallEnded,
    DownloadProgress,
    ResponseStarted,
    RetryScheduled,
    SlotAcquired,
    StatusChanged,
    UploadProgress,
    WaitingForSlot,
)
from fal_async.telemetry import _attributes as names
from fal_async.types import Completed, InProgress, Queued

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span, Tracer

    from fal_async.hooks import Call, Event

__all__ = ["CallSpans", "call_attributes"]

_propagator = TraceContextTextMapPropagator()


def call_attributes(call: Call) -> dict[str, str]:
    """Return the attributes of a call that spans and metrics share."""
    attributes = {
        names.OPERATION: names.OPERATIONS.get(call.name, call.name),
        names.PROVIDER: names.PROVIDER_NAME,
    }
    if call.application:
        attributes[names.MODEL] = call.application
    return attributes


class CallSpans:
    """The span of one call, and the spans of its attempts, waits and files.

    Args:
        tracer: Makes the spans.
        call: The call.
    """

    def __init__(self, tracer: Tracer, call: Call) -> None:
        self._tracer = tracer
        self._parts: dict[tuple[object, ...], Span] = {}
        self._waits_for_job = call.name != "submit"
        attributes: dict[str, Any] = {**call_attributes(call), names.CALL: call.name}
        if call.name == "stream":
            attributes[names.STREAM] = True
        if call.request_id is not None:
            attributes[names.RESPONSE_ID] = attributes[names.REQUEST_ID] = call.request_id
        carrier = {} if call.traceparent is None else {"traceparent": call.traceparent}
        linked = trace.get_current_span(_propagator.extract(carrier)).get_span_context()
        self.span = tracer.start_span(
            f"{attributes[names.OPERATION]} {call.application}".strip(),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            links=[Link(linked)] if linked.is_valid else [],
        )
        self._context = trace.set_span_in_context(self.span)

    def traceparent(self) -> str | None:
        """Return the trace context of the call as a header value."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, context=self._context)
        return carrier.get("traceparent")

    def add(self, event: Event) -> None:
        """Start or end the span of a part of the call."""
        match event:
            case WaitingForSlot(limit=limit):
                self._start(("slot", limit), "wait for slot", {names.LIMIT: limit})
            case SlotAcquired(limit=limit):
                self._end(("slot", limit))
            case AttemptStarted() | ResponseStarted() | AttemptFailed():
                self._add_attempt(event)
            case RetryScheduled():
                self.span.add_event(
                    "retry",
                    {"fal.operation": event.operation, "fal.delay": event.delay,
                     "fal.reason": event.reason},
                )  # fmt: skip
            case StatusChanged(status=Queued(position=position)):
                self._part(("queue",)).add_event("status", {names.QUEUE_POSITION: position})
            case StatusChanged(status=InProgress()) if ("run",) not in self._parts:
                self._end(("queue",))
                self._start(("run",), "run", {})
            case StatusChanged(status=Completed()):
                self._end(("queue",))
                self._end(("run",))
            case UploadProgress(file=file, sent=sent, complete=complete):
                self._add_file(("upload", str(file)), sent, complete=complete)
            case DownloadProgress(url=url, received=received, complete=complete):
                self._add_file(("download", url), received, complete=complete)
            case _:
                pass

    def end(self, event: CallEnded) -> None:
        """End all spans of the call."""
        for key in list(self._parts):
            self._end(key)
        found = {
            names.OUTCOME: event.outcome,
            names.ATTEMPTS: event.attempts,
            names.RETRIES: event.retries,
            names.BYTES_SENT: event.bytes_sent,
            names.BYTES_RECEIVED: event.bytes_received,
            names.SLOT_SECONDS: event.seconds_in_slot,
            names.QUEUE_SECONDS: event.seconds_in_queue,
            names.RUN_SECONDS: event.seconds_in_run,
            names.BILLABLE_UNITS: event.billable_units,
            names.EVENTS: event.events or None,
            names.REQUEST_ID: event.request_id,
            names.RESPONSE_ID: event.request_id,
        }
        self.span.set_attributes(
            {name: value for name, value in found.items() if value is not None}
        )
        if event.error is not None:
            kind = type(event.error).__name__
            self.span.set_attribute(names.ERROR_TYPE, kind)
            # Messages may repeat parts of the arguments.
            self.span.set_status(Status(StatusCode.ERROR, kind))
        self.span.end()

    def _add_attempt(self, event: AttemptStarted | ResponseStarted | AttemptFailed) -> None:
        key = ("request", event.request)
        if isinstance(event, AttemptStarted):
            server: dict[str, Any] = {names.SERVER: event.host}
            if event.port is not None:
                server[names.PORT] = event.port
            self.span.set_attributes(server)
            attributes = {**server, names.METHOD: event.method}
            if event.attempt > 1:
                attributes[names.RESEND_COUNT] = event.attempt - 1
            self._start(key, event.operation, attributes, SpanKind.CLIENT)
            return
        span = self._parts.get(key)
        if span is None:  # the response had started before it failed
            return
        if isinstance(event, ResponseStarted):
            span.set_attribute(names.STATUS_CODE, event.status_code)
            failure = str(event.status_code) if event.status_code >= 400 else None
        else:
            failure = "connection"
        if failure is not None:
            span.set_attribute(names.ERROR_TYPE, failure)
            span.set_status(Status(StatusCode.ERROR))
        self._end(key)
        if event.operation == "submit" and self._waits_for_job and failure is None:
            self._start(("queue",), "queue", {})

    def _add_file(self, key: tuple[str, str], size: int, *, complete: bool) -> None:
        span = self._part(key)
        if complete:
            span.set_attribute(names.FILE_SIZE, size)
            self._end(key)

    def _part(self, key: tuple[str, ...]) -> Span:
        """Return the span of a part, which begins with the first event of the part."""
        if key not in self._parts:
            self._start(key, key[0], {})
        return self._parts[key]

    def _start(
        self,
        key: tuple[object, ...],
        name: str,
        attributes: Mapping[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        self._parts[key] = self._tracer.start_span(
            name, context=self._context, kind=kind, attributes=dict(attributes)
        )

    def _end(self, key: tuple[object, ...]) -> None:
        span = self._parts.pop(key, None)
        if span is not None:
            span.end()
