"""Job statuses with their log lines, and the stages of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from fal_async._core.annotations import set_module

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

__all__ = ["Completed", "InProgress", "LogLine", "Queued", "Stage", "Status", "Unknown"]

#: What a call was doing when an error ended it; see `FalClientError`.
Stage: TypeAlias = Literal["upload", "submit", "wait", "job", "result", "download"]


class _Message(TypedDict):
    message: str


class LogLine(_Message, total=False):
    """One line that the app wrote while it worked on the job.

    ``timestamp`` is ISO 8601, ``level`` one of STDERR, STDOUT, ERROR, INFO, WARN, DEBUG. Only
    ``message`` is always there.
    """

    timestamp: str
    level: str
    source: str


def _log_line_schema(source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
    """The fields of a log line, as pydantic checks them; what else is in it is kept."""
    from pydantic_core import core_schema  # who asks has it at hand

    text = core_schema.str_schema()
    fields = {
        name: core_schema.typed_dict_field(text, required=name in LogLine.__required_keys__)
        for name in sorted(LogLine.__required_keys__ | LogLine.__optional_keys__)
    }
    return core_schema.typed_dict_schema(fields, cls=LogLine, extra_behavior="allow")


LogLine.__module__ = "fal_async.types"
# pydantic takes the `TypedDict` of old Pythons from nowhere but `typing_extensions`, which is slow
# to import; and no class body of a `TypedDict` can have a method.
setattr(LogLine, "__get_pydantic_core_schema__", _log_line_schema)  # noqa: B010 -- see above


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class Status:
    """The base of what a job can be: `Queued`, `InProgress`, `Completed` or `Unknown`."""


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class Queued(Status):
    """The job waits.

    Attributes:
        position: How many requests are ahead of it; ``None`` when the platform did not say.
    """

    position: int | None


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class InProgress(Status):
    """A runner works on the job.

    Attributes:
        logs: The log lines; empty when there are none, and when logs were not asked for.
    """

    logs: list[LogLine]

    def __post_init__(self) -> None:
        object.__setattr__(self, "logs", self.logs or [])  # a program may say `None`


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class Completed(Status):
    """The job has ended, which is not to say that it succeeded: fetching the result tells.

    Attributes:
        logs: The log lines; empty when there are none, and when logs were not asked for.
        metrics: Figures of the run, such as ``inference_time`` in seconds.
        error: What went wrong, for people; ``None`` when the platform reports nothing.
        error_type: The platform's name for the error, or ``None``.
    """

    logs: list[LogLine]
    metrics: dict[str, Any]
    error: str | None = None
    error_type: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "logs", self.logs or [])  # a program may say `None`


@set_module("fal_async.types")
@dataclass(frozen=True, slots=True)
class Unknown(Status):
    """A status that this version of the library does not know. Waiting goes on.

    Attributes:
        raw: The status object as the platform sent it.
    """

    raw: dict[str, Any]
