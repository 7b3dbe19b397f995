"""How far a call has come, which the error that ends it tells."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from fal_async._http.transmission import Transmission
from fal_async._protocol.operation import Lane
from fal_async._protocol.progress import failed_stage, started_by
from fal_async.errors import FalClientError, FalClientTimeoutError, NotFoundError

if TYPE_CHECKING:
    from fal_async._protocol.operation import Operation
    from fal_async._protocol.response import Response
    from fal_async.types import Stage, Status

__all__ = ["CallState", "call_state", "use_call_state"]


class CallState:
    """How far a call has come.

    A call of the library makes several operations. The state is the call's: each operation brings
    it up to date, and whatever ends the call, an error of an operation or a deadline outside of it,
    takes its `stage` and `started` from there.

    Args:
        stage: The stage that it begins with.
        started: Whether there is a job already; ``None`` when that is not known.

    Attributes:
        waiting_for: The local limit that is waited for; empty when none is.
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
        """The stage that the call is in."""
        operation = self._operation
        if operation is not None and operation.lane is Lane.HELD and self.is_sent:
            return "job"  # which runs over the connection that it is asked for on
        return self._stage

    @property
    def started(self) -> bool | None:
        """Whether a job was started, as far as is known now."""
        operation = self._operation
        if self._started or operation is None:
            return self._started
        if operation.request_id is not None:
            return True
        return None if operation.is_billable and self.is_sent else self._started

    @property
    def is_sent(self) -> bool:
        """Whether any of the operation's request may have reached the platform."""
        return self._transmission is not None and self._transmission.sent

    def enter(self, stage: Stage | None) -> None:
        """Go on to a stage; ``None`` stays in the one before."""
        if stage is not None:
            self._stage = stage
        self._operation = self._transmission = None

    def begin(self, operation: Operation[Any]) -> None:
        """Begin an operation."""
        self.enter(operation.stage)
        self._operation = operation

    def __enter__(self) -> None:
        """Watch an operation: the error that ends it is told how far the call had come."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FalClientError):
            self.describe(error)

    def transmit(self) -> Transmission:
        """Begin to send the operation's request, for the first time or again."""
        operation = self._operation
        self._transmission = Transmission(
            repeatable=operation is not None and not operation.is_billable
        )
        return self._transmission

    def receive(self, response: Response) -> None:
        """Take note of the response to the operation, from its status and headers."""
        operation = self._operation
        if operation is not None and operation.is_billable and not self._started:
            self._started = started_by(response, direct=operation.lane is Lane.HELD)
            if self._started is False:
                self._transmission = None  # it was as good as never sent

    def describe(self, error: FalClientError) -> None:
        """Tell an error how far the call had come, unless it knows already."""
        operation = self._operation
        if error.stage is None:
            error.stage = self.stage if operation is None else failed_stage(error, operation)
            error.stage = error.stage or self.stage
        if error.started is None and "started" not in vars(error):
            is_unknown_job = isinstance(error, NotFoundError) and not self._started
            error.started = None if is_unknown_job and self.started else self.started

    def timeout_error(
        self, timeout: float, request_id: str | None = None, last: Status | None = None
    ) -> FalClientTimeoutError:
        """Make the error of a deadline that has passed."""
        waiting_for = self.waiting_for
        if self._transmission is not None:
            waiting_for = waiting_for or self._transmission.waiting_for
        error = FalClientTimeoutError(timeout, request_id, last, waiting_for=waiting_for or None)
        self.describe(error)
        return error


_current: ContextVar[CallState | None] = ContextVar("fal_async_call_state", default=None)


def call_state() -> CallState:
    """Return the state of the call that is being made, or one of its own for a lone operation."""
    return _current.get() or CallState()


class use_call_state:  # noqa: N801 -- reads as a statement, and costs less than a generator
    """Make a state that of the operations within; ``None`` lets each have its own."""

    __slots__ = ("_state", "_token")

    def __init__(self, state: CallState | None) -> None:
        self._state = state

    def __enter__(self) -> None:
        self._token = _current.set(self._state)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        _current.reset(self._token)
