"""`CallState`: the progress of a call; `CallScope`: its block, with a deadline."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio

from fal_async._dispatch.call_observer import NO_OBSERVER
from fal_async._http.transmission import Transmission
from fal_async._protocol.operation import Lane
from fal_async._protocol.retry import Retry, is_rejected
from fal_async.errors import (
    FalClientError,
    FalClientHTTPError,
    FalClientTimeoutError,
    InvalidResponseError,
    NotFoundError,
)

if TYPE_CHECKING:
    from types import TracebackType

    from fal_async._dispatch.call_observer import CallObserver
    from fal_async._protocol.operation import Operation
    from fal_async._protocol.response import Response
    from fal_async.types import Stage, Status

__all__ = [
    "CallScope",
    "CallState",
    "SubmittedJob",
    "call_state",
    "current_call",
    "started_by",
    "use_call_state",
]

#: The gateway returns these before it looks for a runner.
_REJECTIONS: Final = frozenset({401, 403, 429})
#: The queue itself returns these for an output.
_QUEUE_ERRORS: Final = frozenset({401, 403, 404, 408, 429})


class CallState:
    """The progress of one call, which may execute several operations.

    Each operation updates the state. The error that ends the call takes its `stage` and `started`
    from it, whether the error is that of an operation or of a deadline.

    Args:
        stage: The first stage.
        started: Whether a job was started already; ``None`` if unknown.
        request_id: The id of the job that the call is made for; ``None`` without one.
        observer: Receives the steps of the call.

    Attributes:
        waiting_for: The local limit that the call waits for; empty while it waits for none.
        request_id: The id of the request or of the job; ``None`` if unknown.
        last: The last status of the job; ``None`` without one.
        uncancelled: The ids of jobs that the call started and could not cancel.
        observer: Receives the steps of the call.
        retries: The number of retries of all operations of the call.
    """

    __slots__ = (
        "_has_job",
        "_operation",
        "_stage",
        "_started",
        "_transmission",
        "last",
        "observer",
        "request_id",
        "retries",
        "uncancelled",
        "waiting_for",
    )

    def __init__(
        self,
        stage: Stage | None = None,
        *,
        started: bool | None = False,
        request_id: str | None = None,
        observer: CallObserver = NO_OBSERVER,
    ) -> None:
        self.observer: CallObserver = observer
        self.request_id: str | None = request_id
        self.last: Status | None = None
        self.uncancelled: tuple[str, ...] = ()
        self._stage: Stage | None = stage
        self._started = started
        self._has_job = False
        self._operation: Operation[Any] | None = None
        self._transmission: Transmission | None = None
        self.waiting_for: str = ""
        self.retries: int = 0

    @property
    def stage(self) -> Stage | None:
        """The current stage of the call."""
        operation = self._operation
        if operation is not None and operation.lane is Lane.HELD and self.is_sent:
            return "job"  # the job runs while its request is open
        return self._stage

    @property
    def started(self) -> bool | None:
        """True if a job was started, false if none was, ``None`` if unknown."""
        operation = self._operation
        if self._has_job or (operation is not None and operation.request_id is not None):
            return True
        if self._started or operation is None:
            return self._started
        return None if operation.is_billable and self.is_sent else self._started

    @property
    def is_sent(self) -> bool:
        """True if any of the request may have reached the platform."""
        return self._transmission is not None and self._transmission.sent

    def enter(self, stage: Stage | None) -> None:
        """Enter a stage; ``None`` continues the previous stage."""
        if stage is not None:
            self._stage = stage
        self._has_job = False
        self._operation = self._transmission = None

    def begin(self, operation: Operation[Any]) -> None:
        """Begin an operation."""
        self.enter(operation.stage)
        self._operation = operation

    def complete(self) -> None:
        """Forget an operation that has succeeded, and its request, while the call waits."""
        operation = self._operation
        self._has_job = operation is not None and operation.request_id is not None
        self._operation = self._transmission = None

    def start_transmission(self) -> Transmission:
        """Begin an attempt to send the operation's request."""
        operation = self._operation
        self._transmission = Transmission(
            repeatable=operation is not None and not operation.is_billable
        )
        return self._transmission

    def receive(self, response: Response) -> None:
        """Update the state from the status and the headers of a response."""
        operation = self._operation
        if operation is not None and operation.is_billable and not self._started:
            self._started = started_by(response, direct=operation.lane is Lane.HELD)
            if self._started is False:
                self._transmission = None  # a rejected request has no effect

    def describe(self, error: FalClientError) -> None:
        """Set the `stage` and `started` of an error, unless they are set."""
        operation = self._operation
        if error.stage is None:
            error.stage = self.stage
            if operation is None:
                pass
            elif isinstance(error, InvalidResponseError) and operation.lane is Lane.HELD:
                error.stage = "result"  # the output is invalid, and the job has ended
            elif isinstance(error, FalClientHTTPError) and operation.stage == "result":
                of_queue = error.status_code in _QUEUE_ERRORS or error.status_code >= 500
                if operation.retry is Retry.FAILED_RESULT or not of_queue:
                    error.stage = "job"  # the request for an output reports a failed job
        if error.started is None and "started" not in vars(error):
            is_unknown_job = isinstance(error, NotFoundError) and not self._started
            error.started = None if is_unknown_job and self.started else self.started

    def timeout_error(self, timeout: float) -> FalClientTimeoutError:
        """Make the error of a deadline that has passed after a timeout in seconds."""
        waiting_for = self.waiting_for
        if self._transmission is not None:
            waiting_for = waiting_for or self._transmission.waiting_for
        error = FalClientTimeoutError(
            timeout,
            self.request_id,
            self.last,
            waiting_for=waiting_for or None,
            uncancelled=self.uncancelled,
        )
        self.describe(error)
        return error


def started_by(response: Response, *, direct: bool) -> bool | None:
    """Return whether a call has started a job; ``None`` if its response does not show it.

    Args:
        response: The response; its body is ignored.
        direct: Whether the job runs over the same connection, so that errors may be the job's own.
    """
    if response.ok or response.is_from_runner:
        return True
    if response.status_code in _REJECTIONS or response.is_start_timeout or is_rejected(response):
        return False
    if response.status_code >= 500:
        return None
    return None if direct else False


#: The state of the current call; ``None`` outside of calls.
current_call: ContextVar[CallState | None] = ContextVar("fal_async_call_state", default=None)


def call_state() -> CallState:
    """Return the state of the current call, or a new one for an operation on its own."""
    return current_call.get() or CallState()


class SubmittedJob(Protocol):
    """A job that a call is made for, such as an `AsyncRequestHandle`."""

    @property
    def request_id(self) -> str:
        """The id of the job."""
        ...

    @property
    def traceparent(self) -> str | None:
        """The trace context of the submission; ``None`` if unknown."""
        ...


class CallScope:
    """The block of a call: its state is current, and its deadline ends it.

    A block within the block of another call is part of that call.

    Args:
        state: The state.
        timeout: The timeout of the block, in seconds; ``None`` disables it.
        is_part: Whether the call has begun in another block.

    Raises:
        FalClientTimeoutError: The timeout has passed; raised at the end of the block.
    """

    __slots__ = ("_is_part", "_scope", "_timeout", "_token", "state")

    def __init__(self, state: CallState, timeout: float | None, *, is_part: bool) -> None:
        self.state: CallState = state
        self._timeout = timeout
        self._is_part = is_part
        self._scope: anyio.CancelScope | None = None

    def __enter__(self) -> CallState:
        self._token = current_call.set(self.state)
        if self._timeout is not None:
            self._scope = anyio.move_on_after(self._timeout)
            self._scope.__enter__()
        return self.state

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        timed_out = False
        try:
            if self._scope is not None:
                self._scope.__exit__(kind, error, traceback)
                timed_out = self._scope.cancelled_caught
        finally:
            current_call.reset(self._token)
        if timed_out:
            error = self.state.timeout_error(self._timeout or 0)
        if not self._is_part:
            self.state.observer.end(error)
        if timed_out and error is not None:
            raise error from None


class use_call_state:  # noqa: N801 -- used like a function; a generator would cost more
    """Use a state for the operations of the block; ``None`` gives each operation its own."""

    __slots__ = ("_state", "_token")

    def __init__(self, state: CallState | None) -> None:
        self._state = state

    def __enter__(self) -> None:
        self._token = current_call.set(self._state)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        current_call.reset(self._token)
