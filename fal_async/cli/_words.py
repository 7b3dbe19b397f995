"""Statuses of jobs, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fal_async.cli._problems import one_line
from fal_async.types import Completed, InProgress, Queued, Status, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["as_json", "describe"]

_NAMES: Final[Mapping[type[Status], str]] = {
    Queued: "IN_QUEUE",
    InProgress: "IN_PROGRESS",
    Completed: "COMPLETED",
}


def describe(status: Status) -> str:
    """A status in words."""
    match status:
        case Queued(position=position):
            return _place(position)
        case InProgress():
            return "in progress"
        case Completed(error=str(error)):
            return f"completed with an error: {one_line(error)}"
        case Completed(metrics={"inference_time": int() | float() as seconds}):
            return f"completed, after {seconds:.2f} s of work"
        case Completed():
            return "completed"
        case _:
            return "in a state that this version does not know"


def _place(position: int | None) -> str:
    match position:
        case None:
            return "in the queue"
        case 0:
            return "in the queue, next in line"
        case 1:
            return "in the queue, 1 job ahead"
        case _:
            return f"in the queue, {position} jobs ahead"


def as_json(status: Status) -> dict[str, Any]:
    """A status as the platform names it; what is ``None`` is left out."""
    if isinstance(status, Unknown):
        return status.raw
    facts = asdict(status)
    if isinstance(status, Queued):
        facts = {"queue_position": status.position}
    known = {name: value for name, value in facts.items() if value is not None}
    return {"status": _NAMES[type(status)], **known}
