"""Statuses of jobs, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fal_async.cli._problems import one_line
from fal_async.types import Completed, InProgress, Queued, Status, Unknown

__all__ = ["as_json", "describe"]


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
    """A status as the platform names it; ``None`` is left out."""
    match status:
        case Queued(position=position):
            facts = {"status": "IN_QUEUE", "queue_position": position}
        case InProgress():
            facts = {"status": "IN_PROGRESS", **asdict(status)}
        case Completed():
            facts = {"status": "COMPLETED", **asdict(status)}
        case Unknown(raw=raw):
            facts = raw
        case _:
            facts = {}
    return {name: value for name, value in facts.items() if value is not None}
