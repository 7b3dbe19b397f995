"""Job statuses with their log lines, and the stages of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from fal_async._core.annotations import set_module

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Completed", "InProgress", "LogLine", "Queued", "Stage", "Status", "Unknown"]

#: The stage of a call that failed; see `FalClientError`.
Stage: TypeAlias = Literal["upload", "submit", "wait", "job", "result", "download"]


class _Message(TypedDict):
    message: str


class LogLine(_Message, total=False):
    """A line in the log of a job.

    ``timestamp`` is in ISO 8601, ``level`` one of STDERR, STDOUT, ERROR, INFO, WARN, DEBUG. Only
    ``message`` is always present.
    """

    timestamp: str
    level: str
    source: str


def _html(text: str, logs: list[LogLine]) -> str:
    from fal_async._core.notebook import status_html  # only notebooks call this

    return status_html(text, logs)


def _log_line_schema(source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
    """Return the schema of a log line, which keeps unknown fields."""
    from pydantic_core import core_schema  # programs that use pydantic have imported it

    text = core_schema.str_schema()
    fields = {
        name: core_schema.typed_dict_field(text, required=name in LogLine.__required_keys__)
        for name in sorted(LogLine.__required_keys__ | LogLine.__optional_keys__)
    }
    return core_schema.typed_dict_schema(fields, cls=LogLine, extra_behavior="allow")


LogLine.__module__ = "fal_async.types"
# In old Pythons, pydantic accepts no `TypedDict` but that of `typing_extensions`, which is slow to
# import. The class body of a `TypedDict` cannot define a method.
setattr(LogLine, "__get_pydantic_core_schema__", _log_line_schema)  # noqa: B010 -- see above


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class Status:
    """The base class of `Queued`, `InProgress`, `Completed` and `Unknown`."""


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class Queued(Status):
    """The job is waiting in the queue.

    Attributes:
        position: The number of requests ahead of it; ``None`` if it is unknown.
    """

    position: int | None

    def _repr_html_(self) -> str:
        ahead = "" if self.position is None else f", {self.position} ahead"
        return _html(f"In the queue{ahead}", [])


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class InProgress(Status):
    """A runner is executing the job.

    Attributes:
        logs: The log lines; empty if there are none, or if logs were not requested.
    """

    logs: list[LogLine]

    def __post_init__(self) -> None:
        object.__setattr__(self, "logs", self.logs or [])  # programs may pass `None`

    def _repr_html_(self) -> str:
        return _html("In progress", self.logs)


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class Completed(Status):
    """The job has ended. It succeeded if fetching the result succeeds.

    Attributes:
        logs: The log lines; empty if there are none, or if logs were not requested.
        metrics: The metrics of the run, such as ``inference_time`` in seconds.
        error: The error message, for people; ``None`` if the platform reports no error.
        error_type: The platform's name for the error, or ``None``.
    """

    logs: list[LogLine]
    metrics: dict[str, Any]
    error: str | None = None
    error_type: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "logs", self.logs or [])  # programs may pass `None`

    def _repr_html_(self) -> str:
        seconds = self.metrics.get("inference_time")
        took = f" in {seconds:.2f} s" if isinstance(seconds, int | float) else ""
        failed = "" if self.error is None else f": {self.error}"
        return _html(f"Completed{took}{failed}", self.logs)


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class Unknown(Status):
    """A status that this version of the library does not know. Calls keep waiting.

    Attributes:
        raw: The status object as the platform sent it.
    """

    raw: dict[str, Any]
