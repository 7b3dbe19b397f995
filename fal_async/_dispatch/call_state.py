"""`CallState`: the progress of a call, for the errors and deadlines that end it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

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
    from fal_async._protocol.operation import Operation
    from fal_async._protocol.response import Response
    from fal_async.types import Stage, Status

__all__ = ["CallState", "call_state", "started_by", "use_call_state"]

#: The gateway returns these before it looks for a runner.
_REJECTIONS: Final = frozenset({401, 403, 429})
#: The queue itself returns these for an output.
_QUEUE_ERRORS: Final = frozenset({401, 403, 404, 408, 429})


class CallState:
    """The progress of one call, which may execute several operations.

    Each operation updates the state. The error that ends the call takes its `stage` and `started`
    from it, whether the error is that of an operation or of a deadline.

    Used as a context manager, it describes the errors of the block.

    Args:
        stage: The first stage.
        started: Whether a job was started already; ``None`` if unknown.

    Attributes:
        waiting_for: The local limit that the call waits for; empty while it waits for none.
    """

    __slots__ = ("_operation", "_stage", "_started", "_transmission", "waiting_for")

    def __init__(self, stage: Stage | None = None, *, started: bool | None = False) -> None:
        self._stage: Stage | None = stage
        self._started = started
        self._operation: Operation[Any] | None = None
        self._transmission: Transmission | None = None
        self.waiting_for = ""

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
        if self._started or operation is None:
            return self._started
        if operation.request_id is not None:
            return True
        return None if operation.is_billable and self.is_sent else self._started

    @property
    def is_sent(self) -> bool:
        """True if any of the request may have reached the platform."""
        return self._transmission is not None and self._transmission.sent

    def enter(self, stage: Stage | None) -> None:
        """Enter a stage; ``None`` continues the previous stage."""
        if stage is not None:
            self._stage = stage
        self._operation = self._transmission = None

    def begin(self, operation: Operation[Any]) -> None:
        """Begin an operation."""
        self.enter(operation.stage)
        self._operation = operation

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FalClientError):
            self.describe(error)

    def transmit(self) -> Transmission:
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

    def timeout_error(
        self, timeout: float, request_id: str | None = None, last: Status | None = None
    ) -> FalClientTimeoutError:
        """Make the error of a deadline that has passed.

        Args:
            timeout: The timeout, in seconds.
            request_id: The id of the request; ``None`` if unknown.
            last: The last status of the job; ``None`` without one.
        """
        waiting_for = self.waiting_for
        if self._transmission is not None:
            waiting_for = waiting_for or self._transmission.waiting_for
        error = FalClientTimeoutError(timeout, request_id, last, waiting_for=waiting_for or None)
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


_current: ContextVar[CallState | None] = ContextVar("fal_async_call_state", default=None)


def call_state() -> CallState:
    """Return the state of the current call, or a new one for an operation on its own."""
    return _current.get() or CallState()


class use_call_state:  # noqa: N801 -- used like a function; a generator would cost more
    """Use a state for the operations of the block; ``None`` gives each operation its own."""

    __slots__ = ("_state", "_token")

    def __init__(self, state: CallState | None) -> None:
        self._state = state

    def __enter__(self) -> None:
        self._token = _current.set(self._state)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        _current.reset(self._token)
