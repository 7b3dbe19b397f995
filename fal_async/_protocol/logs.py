"""De-duplication of log lines and statuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._core.checks import check_flag
from fal_async._protocol.serialization import json_text
from fal_async.types import Completed, InProgress, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fal_async.types import LogLine

__all__ = ["LogCursor", "StatusFilter", "parse_logs"]


#: Fields whose values are converted to text.
_TEXTS: Final = frozenset({"message", "timestamp", "level", "source"})


class LogCursor:
    """The position in the log of a job.

    Lines with a timestamp are identified by timestamp and message. A line is new if the window
    holds it more often than it was delivered, at any position, so late lines and windows out of
    order do no harm. Without timestamps only the order is left: the longest suffix of the delivered
    lines that the window begins with is old, and the rest is new.

    The cursor keeps a fingerprint of each line, and its cost is linear in the window.

    Example:
        >>> cursor = LogCursor()
        >>> cursor.new_lines([{"message": "loading"}, {"message": "step"}])
        [{'message': 'loading'}, {'message': 'step'}]
        >>> cursor.new_lines([{"message": "step"}, {"message": "step"}, {"message": "done"}])
        [{'message': 'step'}, {'message': 'done'}]
    """

    def __init__(self) -> None:
        self._delivered: list[int] = []
        self._counts: Counter[int] = Counter()

    def new_lines(self, window: Sequence[LogLine]) -> list[LogLine]:
        """Return the lines of a window that were not returned before."""
        prints = [hash((line.get("timestamp"), line["message"])) for line in window]
        if all("timestamp" in line for line in window):
            indexes: list[int] = []
            seen: Counter[int] = Counter()
            for index, fingerprint in enumerate(prints):
                seen[fingerprint] += 1
                if seen[fingerprint] > self._counts[fingerprint]:
                    indexes.append(index)
        else:
            overlap = _overlap(prints, self._delivered[-len(prints) :])
            indexes = list(range(overlap, len(prints)))
        new = [prints[index] for index in indexes]
        self._delivered += new
        self._counts.update(new)
        return [window[index] for index in indexes]


def _overlap(head: list[int], tail: list[int]) -> int:
    """Return the length of the longest prefix of `head` that is a suffix of `tail`."""
    # The prefix function of Knuth, Morris and Pratt. `None` separates the lists and equals no line.
    text: list[int | None] = [*head, None, *tail]
    lengths = [0]
    for fingerprint in text[1:]:
        length = lengths[-1]
        while length and text[length] != fingerprint:
            length = lengths[length - 1]
        lengths.append(length + (text[length] == fingerprint))
    return lengths[-1]


def parse_logs(raw: object) -> list[LogLine]:
    """Parse the ``logs`` of a status into lines with a message. Unknown fields are kept.

    Args:
        raw: Decoded JSON: a list of objects, by the protocol. Other values become lines, too.

    Returns:
        The lines; none if there is no log, usually because it was not requested.

    Example:
        >>> parse_logs([{"message": "loading", "level": None}, "plain text"])
        [{'message': 'loading'}, {'message': 'plain text'}]
    """
    if raw is None:
        return []
    entries = cast("list[object]", raw) if isinstance(raw, list) else [raw]
    return [_read_entry(entry) for entry in entries if entry is not None]


def _read_entry(entry: object) -> LogLine:
    if not isinstance(entry, dict):
        return {"message": json_text(entry)}
    fields = cast("dict[str, Any]", entry)
    if "message" not in fields:  # all of it becomes the message
        texts = {name: value for name, value in fields.items() if name in _TEXTS}
        fields = {**texts, "message": fields}
    line: dict[str, Any] = {"message": json_text(fields["message"])}
    for name, value in fields.items():
        if name not in _TEXTS:
            line[name] = value
        elif value is not None and name != "message":
            line[name] = json_text(value)
    return cast("LogLine", line)


#: The state of all jobs that runners execute, without the log lines.
_IN_PROGRESS: Final = InProgress([])


class StatusFilter:
    """A filter for the statuses of one job, from any number of requests and streams.

    Args:
        with_logs: Whether statuses carry log lines.
        repeats: Whether to return an unchanged status, without its old log lines.
    """

    def __init__(self, *, with_logs: bool, repeats: bool = False) -> None:
        self._cursor = LogCursor() if check_flag("with_logs", with_logs) else None
        self._repeats = repeats
        self._last: Status | None = None

    def new_status(self, status: Status) -> Status | None:
        """Return the status with its new log lines only; ``None`` if it has not changed."""
        state: Status = status
        lines: list[LogLine] = []
        if isinstance(status, InProgress | Completed):
            if self._cursor is not None:
                lines = self._cursor.new_lines(status.logs)
            state = _IN_PROGRESS if isinstance(status, InProgress) else replace(status, logs=[])
            if status.logs != lines:
                status = replace(status, logs=lines)
        repeated = state == self._last and not lines and not self._repeats
        self._last = state
        return None if repeated else status
