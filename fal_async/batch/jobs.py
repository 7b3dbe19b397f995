"""Values of a batch: jobs with their outcomes, the progress, and the totals of a run."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from fal_async._core.annotations import set_module
from fal_async.batch.entries import jsonable_output
from fal_async.errors import (
    FalClientError,
    FalClientHTTPError,
    InvalidInputError,
    JobCancelledError,
    NotFoundError,
    RateLimitError,
    ServerError,
    SubmitOutcomeUnknownError,
    TransportError,
    from_dict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from decimal import Decimal
    from pathlib import Path

    from fal_async._client.result import Result
    from fal_async.types import Stage

__all__ = [
    "Again",
    "BatchSummary",
    "ErrorFacts",
    "Job",
    "Outcome",
    "Progress",
    "RowChange",
    "Stop",
    "StopReason",
    "StoredJob",
    "Unsettled",
]

#: The reason for which a batch has started no more jobs before its inputs were exhausted.
StopReason: TypeAlias = Literal["requested", "budget", "failures", "error"]

#: The row of an outcome in the output file: it is there, is added, or replaces one of earlier runs.
RowChange: TypeAlias = Literal["none", "added", "replaced"]

#: Errors that another job for the same input may not have.
_PASSING: Final = (ServerError, RateLimitError, TransportError)
#: Errors that every job for the same input has, whatever the platform says about retries.
_FINAL: Final = (InvalidInputError, JobCancelledError, NotFoundError)


@set_module("fal_async.batch")
@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorFacts:
    """The error of a job, as a journal and a row of the output record it.

    Attributes:
        type: The name of the error's class, such as ``"ContentPolicyError"``.
        message: The error message, for people.
        stage: The stage of the call that failed, or ``None``; see `FalClientError`.
        started: Whether a job was started; ``None`` if that is unknown.
        status: The HTTP status, or ``None``.
        error_type: The platform's name for the error, or ``None``.
        problems: The validation errors of the input.
        retryable: Whether another job may succeed.
        final: Whether the batch starts no other job for the input.
    """

    type: str
    message: str
    stage: Stage | None = None
    started: bool | None = None
    status: int | None = None
    error_type: str | None = None
    problems: tuple[Mapping[str, Any], ...] = ()
    retryable: bool = False
    final: bool = True

    @classmethod
    def from_error(cls, error: Exception) -> ErrorFacts:
        """Return the facts of an error."""
        if not isinstance(error, FalClientError):
            return cls(type=type(error).__name__, message=str(error) or type(error).__name__)
        facts: dict[str, Any] = {}
        if isinstance(error, FalClientHTTPError):
            facts["status"], facts["error_type"] = error.status_code, error.error_type
            facts["problems"] = tuple(
                {"loc": list(each.loc), "type": each.type, "message": each.message}
                for each in error.details
            )
        is_passing = isinstance(error, _PASSING) or getattr(error, "retryable", False)
        return cls(
            type=type(error).__name__,
            message=error.message if isinstance(error, FalClientHTTPError) else str(error),
            stage=error.stage,
            started=error.started,
            retryable=is_passing and not isinstance(error, _FINAL),
            **facts,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ErrorFacts:
        """Return the facts that `to_dict` has written. Unknown names are ignored."""
        known = {name: data[name] for name in cls.__slots__ if name in data}
        known["problems"] = tuple(known.get("problems", ()))
        return cls(**known)

    def to_error(self, application: str, request_id: str | None = None) -> FalClientError:
        """Return an error with these facts.

        Args:
            application: The endpoint id.
            request_id: The id of the job, or ``None``.
        """
        error: FalClientError
        if self.status is not None:
            return from_dict({
                "type": self.type,
                "message": self.message,
                "stage": self.stage,
                "started": self.started,
                "status_code": self.status,
                "error_type": self.error_type,
                "details": [dict(problem) for problem in self.problems],
                "retryable": self.retryable,
                "request_id": request_id,
            })  # fmt: skip
        if self.type == "SubmitOutcomeUnknownError":
            error = SubmitOutcomeUnknownError(application, self.message, request_id=request_id)
        else:
            error = FalClientError(f"{self.type}: {self.message}")
        error.stage, error.started = self.stage, self.started
        return error

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON values, without those that are unknown."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["problems"] = [dict(problem) for problem in self.problems]
        keep = ("type", "message", "started", "final")
        return {name: value for name, value in values.items() if value or name in keep}


@set_module("fal_async.batch")
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The outcome of one input of a batch.

    Attributes:
        index: The index of the input.
        key: The key of the input in the journal.
        row: The input.
        arguments: The arguments of the job.
        ok: Whether the job has succeeded; ``None`` if that is unknown: see `error`.
        output: The output; ``None`` without one. Bytes are a data URL in rows and in the journal.
        result: The output with its metadata, as far as the journal has it; ``None`` if there is
            none, or it is not an object.
        files: The saved files.
        error: The error, or ``None``.
        request_id: The id of the job; ``None`` if it is unknown, or none was started.
        units: The billable units, or ``None``.
        cost: The cost; ``None`` if it is unknown.
        seconds: The time from the submit of the latest job to its end, in seconds.
        attempts: The number of jobs that were started for the input, or may have been.
        resumed: Whether an earlier run has started the job.
    """

    index: int
    key: str
    row: Mapping[str, Any]
    arguments: Mapping[str, Any]
    ok: bool | None
    output: Any = None
    result: Result | None = None
    files: tuple[Path, ...] = ()
    error: ErrorFacts | None = None
    request_id: str | None = None
    units: float | None = None
    cost: Decimal | None = None
    seconds: float = 0.0
    attempts: int = 0
    resumed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON values: a row of the output file."""
        row: dict[str, Any] = {"index": self.index, "key": self.key, "ok": self.ok}
        if self.ok:
            row["output"] = jsonable_output(self.output)
        if self.files:
            row["files"] = [str(path) for path in self.files]
        if self.error is not None:
            row["error"] = self.error.to_dict()
        row["request_id"] = self.request_id
        if self.units is not None:
            row["units"] = self.units
        if self.cost is not None:
            row["cost"] = float(self.cost)
        row["seconds"] = round(self.seconds, 3)
        row["attempts"] = self.attempts
        return row


class StoredJob(Job):
    """A job with a large output, which the journal holds until the consumer takes the job."""

    __slots__ = ()

    def without_output(self) -> StoredJob:
        """Return the job without its output, to wait for the consumer."""
        result = self.result
        if result is not None:
            result = type(result)({}, **result._metadata())
            result._dispatcher = cast("Result", self.result)._dispatcher
        return replace(self, output=None, result=result)

    def with_output(self, output: Any) -> Job:
        """Return the job with its output again."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        values["output"] = output
        if self.result is not None:
            self.result.update(output or {})
            values["output"] = self.result
        return Job(**values)


@set_module("fal_async.batch")
@dataclass(slots=True, kw_only=True)
class BatchSummary:
    """The totals of one run of a batch.

    Attributes:
        total: The number of inputs that were read.
        ok: The number of inputs whose job has succeeded.
        failed: The number of inputs whose job was rejected or has failed.
        unsure: The number of inputs for which a job may have been started.
        lost: The number of inputs whose result is gone.
        resumed: The number of inputs whose job was started by an earlier run.
        repeated: The number of inputs that equal an earlier one.
        started: The number of jobs that this run has started, or may have.
        again: The number of jobs that were started although an earlier one may exist.
        units: The billable units of all inputs.
        cost: The cost of all inputs; ``None`` if no cost is known.
        earlier_price: The price of a unit in the run before, if it was another one, or ``None``.
        seconds: The duration of the run so far.
        stopped: The reason for which no more jobs are started; ``None`` if there is none.
    """

    total: int = 0
    ok: int = 0
    failed: int = 0
    unsure: int = 0
    lost: int = 0
    resumed: int = 0
    repeated: int = 0
    started: int = 0
    again: int = 0
    units: float = 0.0
    cost: Decimal | None = None
    earlier_price: Decimal | None = None
    seconds: float = 0.0
    stopped: StopReason | None = None

    @property
    def done(self) -> int:
        """The number of inputs with an outcome."""
        return self.ok + self.failed + self.unsure + self.lost

    def add(self, job: Job) -> None:
        """Count the outcome of an input."""
        error = job.error
        is_of_job = error is not None and error.started and error.stage != "download"
        if job.ok is None:
            self.unsure += 1
        elif job.ok:
            self.ok += 1
        elif error is not None and is_of_job and error.type == "NotFoundError":
            self.lost += 1
        else:
            self.failed += 1
        self.resumed += job.resumed
        self.units += job.units or 0
        if job.cost is not None:
            self.cost = job.cost if self.cost is None else self.cost + job.cost


@set_module("fal_async.batch")
@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a running batch.

    Attributes:
        total: The number of inputs; ``None`` while they are being read.
        done: The number of inputs with an outcome.
        ok: The number of inputs whose job has succeeded.
        failed: The number of inputs whose job was rejected or has failed.
        unsure: The number of inputs for which a job may have been started.
        lost: The number of inputs whose result is gone.
        in_flight: The number of jobs that were started and have not ended.
        running: The number of jobs that a runner executes.
        queued: The number of jobs that wait for a runner.
        limit: The maximum of `in_flight` at present.
        per_second: The inputs done per second, in the latest five minutes.
        eta: The time to the end at that rate; ``None`` if it is unknown.
        units: The billable units so far.
        cost: The cost so far; ``None`` if it is unknown.
        cost_at_end: The cost of all inputs at the mean cost so far, or at the price of a unit;
            ``None`` if neither is known.
    """

    total: int | None
    done: int
    ok: int
    failed: int
    unsure: int
    lost: int
    in_flight: int
    running: int
    queued: int
    limit: float
    per_second: float
    eta: timedelta | None
    units: float
    cost: Decimal | None
    cost_at_end: Decimal | None


@dataclass(frozen=True, slots=True)
class Again:
    """An input that has to be executed again.

    Attributes:
        delay: The time to wait before, in seconds.
        is_foreign: Whether another process is executing it.
    """

    delay: float = 0.0
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Unsettled:
    """An input for which a job may have been started: the platform has to be asked."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The end of the batch: an input was not started, and no other can be."""

    error: FalClientError | None = None


#: What a step for an input leads to.
Outcome: TypeAlias = Job | Again | Unsettled | Stop
