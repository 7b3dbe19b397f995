"""Status filter: only changes and new log entries are delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fal_async._protocol.logs import StatusFilter
from fal_async.types import Completed, InProgress, LogLine, Queued, Status, Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence


def lines(*messages: str) -> list[LogLine]:
    return [LogLine(message=message, timestamp="2026-02-17T10:30:01Z") for message in messages]


def fresh(*statuses: Status, with_logs: bool = False) -> list[Status]:
    changes = StatusFilter(with_logs=with_logs)
    return [new for status in statuses if (new := changes.new_status(status)) is not None]


DONE = Completed([], {"inference_time": 0.5})


@pytest.mark.parametrize(
    ("statuses", "new"),
    [
        ([], []),
        ([Queued(2), Queued(2), Queued(1), Queued(1)], [Queued(2), Queued(1)]),
        ([Queued(None), Queued(None), Queued(0)], [Queued(None), Queued(0)]),
        ([Queued(0), InProgress([]), InProgress([])], [Queued(0), InProgress([])]),
        (
            [InProgress([]), Queued(0), InProgress([])],
            [InProgress([]), Queued(0), InProgress([])],
        ),
        ([Unknown({"status": "X"}), Unknown({"status": "X"})], [Unknown({"status": "X"})]),
        (
            [Unknown({"status": "X"}), Unknown({"status": "Y"})],
            [Unknown({"status": "X"}), Unknown({"status": "Y"})],
        ),
        ([DONE, DONE], [DONE]),
        ([InProgress([]), DONE], [InProgress([]), DONE]),
    ],
)
def test_repeated_status_is_dropped(statuses: Sequence[Status], new: list[Status]) -> None:
    assert fresh(*statuses) == new
    assert fresh(*(status for status in statuses for _ in range(3))) == new


def test_unrequested_logs_are_removed() -> None:
    assert fresh(InProgress(lines("a")), InProgress(lines("a", "b"))) == [InProgress([])]
    assert fresh(Completed(lines("a"), {})) == [Completed([], {})]


def test_only_new_log_entries_are_delivered() -> None:
    assert fresh(
        InProgress([]),
        InProgress(lines("a")),
        InProgress(lines("a")),
        InProgress(lines("a", "b")),
        InProgress([]),
        Completed(lines("b", "c"), {}),
        with_logs=True,
    ) == [
        InProgress([]),
        InProgress(lines("a")),
        InProgress(lines("b")),
        Completed(lines("c"), {}),
    ]


def test_duplicate_log_entry_is_delivered_twice() -> None:
    assert fresh(InProgress(lines("step")), InProgress(lines("step", "step")), with_logs=True) == [
        InProgress(lines("step")),
        InProgress(lines("step")),
    ]


def test_status_without_new_logs_has_empty_list() -> None:
    assert fresh(InProgress([]), Completed([], {}), with_logs=True) == [
        InProgress([]),
        Completed([], {}),
    ]


def test_final_log_entries_are_delivered() -> None:
    assert fresh(
        InProgress(lines("a")), Completed(lines("a", "b"), {}, "boom", "x"), with_logs=True
    ) == [InProgress(lines("a")), Completed(lines("b"), {}, "boom", "x")]


def test_input_status_is_not_modified() -> None:
    status = InProgress(lines("a"))
    changes = StatusFilter(with_logs=True)
    changes.new_status(status)
    changes.new_status(status)
    assert status == InProgress(lines("a"))
