"""The events of calls, as frozen values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from fal_async._core.annotations import set_module

if TYPE_CHECKING:
    from fal_async._core.status import Status

__all__ = [
    "AttemptFailed",
    "AttemptStarted",
    "Call",
    "CallEnded",
    "CallStarted",
    "DownloadProgress",
    "Event",
    "Hook",
    "Outcome",
    "ResponseStarted",
    "RetryScheduled",
    "SlotAcquired",
    "StatusChanged",
    "StreamEventReceived",
    "TracingHook",
    "UploadProgress",
    "WaitingForSlot",
]

#: How a call ended: ``"closed"`` is a stream, a download or a generator that was closed early.
Outcome = Literal["succeeded", "failed", "timed_out", "cancelled", "closed"]


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the client, over all of its requests and retries.

    Attributes:
        id: The number of the call, unique in this process.
        name: The name of the method, such as ``"subscribe"``.
        application: The endpoint id; empty for uploads and downloads.
        request_id: The id of the job if the call was made for one; ``None`` otherwise.
        traceparent: The W3C trace context of the call that submitted the job, if its handle
            contains one; ``None`` otherwise.

    Example:
        >>> Call(id=1, name="run", application="fal-ai/flux/dev").name
        'run'
    """

    id: int
    name: str
    application: str
    request_id: str | None = None
    traceparent: str | None = None


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of a call.

    Attributes:
        call: The call.
    """

    call: Call


#: A function that is called with each event, sync or async.
Hook: TypeAlias = Callable[[Event], Awaitable[None] | None]


@set_module("fal_async.hooks")
class TracingHook(Protocol):
    """A hook that has a trace context for each call, such as `fal_async.telemetry.OTelHook`."""

    def __call__(self, event: Event, /) -> None:
        """Receive an event."""
        ...

    def traceparent(self, call: Call, /) -> str | None:
        """Return the W3C trace context of a call; the handle of its job keeps it."""
        ...

    def propagates_to(self, application: str, /) -> bool:
        """Return whether requests to an app carry the trace context in a header."""
        ...


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(Event):
    """A call has started. Its arguments were validated, and nothing was sent yet."""


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingForSlot(Event):
    """A call waits, since other calls of the client use up a limit.

    Attributes:
        limit: The limit and its size, such as ``"limits.held (1000)"``.
    """

    limit: str


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class SlotAcquired(Event):
    """A call that waited for a slot has got it.

    Attributes:
        limit: The limit and its size.
        seconds: The time that the call has waited, in seconds.
    """

    limit: str
    seconds: float


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(Event):
    """A request is being sent.

    Attributes:
        operation: The operation, such as ``"submit"``; a call may consist of several.
        request: The number of the request within the call, from 1.
        attempt: The number of the attempt of this operation, from 1.
        method: The HTTP method.
        host: The host of the request.
        port: The port; ``None`` for the default of the scheme.
    """

    operation: str
    request: int
    attempt: int
    method: str
    host: str
    port: int | None


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseStarted(Event):
    """The status and the headers of a response have arrived.

    Attributes:
        operation: The operation.
        request: The number of the request within the call, from 1.
        attempt: The number of the attempt, from 1.
        status_code: The HTTP status.
        request_id: The id of the request; ``None`` if the platform did not send it.
        seconds: The time since the attempt started, in seconds.
    """

    operation: str
    request: int
    attempt: int
    status_code: int
    request_id: str | None
    seconds: float


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(Event):
    """A request had no complete response.

    Attributes:
        operation: The operation.
        request: The number of the request within the call, from 1.
        attempt: The number of the attempt, from 1.
        reason: The reason, such as ``"the connection broke"``.
        sent: Whether any of the request may have reached the platform.
        seconds: The time since the attempt started, in seconds.
    """

    operation: str
    request: int
    attempt: int
    reason: str
    sent: bool
    seconds: float


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """An operation will be sent again.

    Attributes:
        operation: The operation.
        attempt: The number of the attempt that failed, from 1.
        delay: The time until the next attempt, in seconds.
        reason: The HTTP status, or the reason why there was no response.
    """

    operation: str
    attempt: int
    delay: float
    reason: str


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChanged(Event):
    """A job has a new status.

    Attributes:
        request_id: The id of the job.
        status: The status.
    """

    request_id: str
    status: Status


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEventReceived(Event):
    """The caller has received an event of a stream.

    Attributes:
        count: The number of events so far.
    """

    count: int


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class UploadProgress(Event):
    """A part of a file was sent.

    Attributes:
        file: The number of the file within the call, from 1.
        name: The name of the file; ``None`` if it has none.
        sent: The bytes sent so far; 0 in the first event of a file.
        size: The size in bytes; ``None`` if it is unknown.
        complete: Whether the file is uploaded; true in the last event of a file.
    """

    file: int
    name: str | None
    sent: int
    size: int | None
    complete: bool


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgress(Event):
    """A part of a file was received.

    Attributes:
        url: The URL of the file, without its query.
        received: The bytes received so far; 0 in the first event of a file.
        size: The size in bytes; ``None`` if it is unknown.
        complete: Whether the file is complete; true in the last event of a file.
    """

    url: str
    received: int
    size: int | None
    complete: bool


@set_module("fal_async.hooks")
@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(Event):
    """A call has ended.

    Attributes:
        outcome: How it ended.
        error: The exception that ended it; ``None`` if it succeeded or was closed.
        request_id: The id of the request or of the job; ``None`` if there is none.
        attempts: The number of requests.
        retries: The number of requests that repeated another.
        events: The number of events of a stream that the caller received.
        bytes_sent: The size of all request bodies, in bytes.
        bytes_received: The size of all response bodies, decompressed, in bytes.
        seconds: The duration of the call, in seconds.
        seconds_in_slot: The time that the call has waited for slots, in seconds.
        seconds_in_queue: The time from the submission of the job until it ran, in seconds; ``None``
            if the call did not see both.
        seconds_in_run: The time that the job ran, in seconds; ``None`` if the call did not see its
            beginning and its end.
        billable_units: The charged units; ``None`` if the platform did not send them.
    """

    outcome: Outcome
    error: BaseException | None
    request_id: str | None
    attempts: int
    retries: int
    events: int
    bytes_sent: int
    bytes_received: int
    seconds: float
    seconds_in_slot: float
    seconds_in_queue: float | None
    seconds_in_run: float | None
    billable_units: float | None
