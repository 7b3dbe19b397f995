"""The plain values that calls take and return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Required, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel

__all__ = [
    "Arguments",
    "Cancellation",
    "Completed",
    "InProgress",
    "LogLine",
    "Priority",
    "Queued",
    "Result",
    "Status",
    "Unknown",
]

#: The input of a model: a mapping of JSON values, or a pydantic model.
Arguments: TypeAlias = "Mapping[str, Any] | BaseModel"

#: The place in the queue. It can only be lowered.
Priority = Literal["normal", "low"]


class LogLine(TypedDict, total=False):
    """One line that the app wrote while it worked on the job.

    ``timestamp`` is ISO 8601, ``level`` one of STDERR, STDOUT, ERROR, INFO, WARN, DEBUG. Only
    ``message`` is always there.
    """

    message: Required[str]
    timestamp: str
    level: str
    source: str


@dataclass(frozen=True, slots=True)
class Status:
    """The base of what a job can be: `Queued`, `InProgress`, `Completed` or `Unknown`."""


@dataclass(frozen=True, slots=True)
class Queued(Status):
    """The job waits.

    Attributes:
        position: How many requests are ahead of it; ``None`` when the platform did not say.
    """

    position: int | None


@dataclass(frozen=True, slots=True)
class InProgress(Status):
    """A runner works on the job.

    Attributes:
        logs: The log lines; ``None`` when logs were not asked for.
    """

    logs: list[LogLine] | None


@dataclass(frozen=True, slots=True)
class Completed(Status):
    """The job has ended, which is not to say that it succeeded: fetching the result tells.

    Attributes:
        logs: The log lines; ``None`` when logs were not asked for.
        metrics: Figures of the run, such as ``inference_time`` in seconds.
        error: What went wrong, for people; ``None`` when the platform reports nothing.
        error_type: The platform's name for the error, or ``None``.
    """

    logs: list[LogLine] | None
    metrics: dict[str, Any]
    error: str | None = None
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown(Status):
    """A status that this version of the library does not know. Waiting goes on.

    Attributes:
        raw: The status object as the platform sent it.
    """

    raw: dict[str, Any]


class Cancellation(str):
    """What the platform answered to a cancel call.

    One of ``"OK"`` (removed from the queue), ``"CANCELLATION_REQUESTED"`` (the runner was told, and
    may still finish) and ``"ALREADY_COMPLETED"`` (too late).
    """

    __slots__ = ()

    @property
    def accepted(self) -> bool:
        """Whether the job was removed or told to stop."""
        return self != "ALREADY_COMPLETED"


class Result(dict[str, Any]):
    """The output of a model: a dictionary that also knows about the request.

    Attributes:
        request_id: The id of the request, or ``None`` when the platform did not say.
        billable_units: The units that were charged, or ``None`` when the platform did not say.
        metrics: Figures of the run; filled by calls that watch the queue.
        retries: How many times an exchange of the call was repeated.
        headers: The headers of the reply, names in lower case.

    Example:
        >>> result = Result({"seed": 7}, request_id="764cabcf")
        >>> result["seed"], result.request_id
        (7, '764cabcf')
    """

    __slots__ = ("billable_units", "headers", "metrics", "request_id", "retries")

    def __init__(
        self,
        output: Mapping[str, Any],
        *,
        request_id: str | None = None,
        billable_units: float | None = None,
        metrics: Mapping[str, Any] | None = None,
        retries: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(output)
        self.request_id = request_id
        self.billable_units = billable_units
        self.metrics: Mapping[str, Any] = metrics or {}
        self.retries = retries
        self.headers: Mapping[str, str] = headers or {}

    def __reduce__(self) -> tuple[Callable[..., Result], tuple[Any, ...]]:
        facts = {name: getattr(self, name) for name in self.__slots__}
        return _restore_result, (dict(self), facts)


def _restore_result(output: dict[str, Any], facts: dict[str, Any]) -> Result:
    return Result(output, **facts)
