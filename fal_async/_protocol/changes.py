"""What is new in a row of statuses: repeats are dropped, log lines come once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fal_async._checks import check_flag
from fal_async._protocol.logs import LogCursor
from fal_async.types import Completed, InProgress, Status

if TYPE_CHECKING:
    from fal_async.types import LogLine

__all__ = ["Changes"]


class Changes:
    """Filters the statuses of one job, however often and from wherever they are read.

    Args:
        with_logs: Whether statuses carry log lines.
        repeats: Whether a status that has not changed is passed on, without its old log lines.
    """

    def __init__(self, *, with_logs: bool, repeats: bool = False) -> None:
        self._cursor = LogCursor() if check_flag("with_logs", with_logs) else None
        self._repeats = repeats
        self._last: Status | None = None

    def fresh(self, status: Status) -> Status | None:
        """The status with nothing but new log lines; ``None`` when it is not to be passed on."""
        state: Status = status
        lines: list[LogLine] = []
        if isinstance(status, InProgress | Completed):
            lines = self._lines(status.logs)
            state, status = replace(status, logs=[]), replace(status, logs=lines)
        repeated = state == self._last and not lines and not self._repeats
        self._last = state
        return None if repeated else status

    def _lines(self, window: list[LogLine]) -> list[LogLine]:
        return [] if self._cursor is None else self._cursor.fresh(window)
