"""Job logs: each entry is delivered once from any sequence of windows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_async._protocol.logs import LogCursor, parse_logs
from fal_async.types import LogLine


def plain(*messages: str) -> list[LogLine]:
    return [LogLine(message=message) for message in messages]


def timed(*messages: str, start: int = 0) -> list[LogLine]:
    return [
        LogLine(message=message, timestamp=f"2026-02-17T10:30:{start + second:06.3f}Z")
        for second, message in enumerate(messages)
    ]


def deliver(*windows: list[LogLine]) -> list[LogLine]:
    cursor = LogCursor()
    return [line for window in windows for line in cursor.new_lines(window)]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[LogLine], list[int]]:
    """Generate a log, and its length at the time of each window."""
    messages = draw(st.lists(st.sampled_from(["step", "loading", "warning"]), max_size=25))
    lengths = draw(st.lists(st.integers(0, len(messages)), max_size=8))
    return timed(*messages), [*sorted(lengths), len(messages)]


@given(histories(), st.data())
def test_any_window_sequence_gives_the_whole_log(
    history: tuple[list[LogLine], list[int]], data: st.DataObject
) -> None:
    log, lengths = history
    cursor = LogCursor()
    delivered: list[LogLine] = []
    for length in lengths:
        # 0 is cumulative, what was delivered is incremental, and between them the window slides.
        start = data.draw(st.integers(0, len(delivered)))
        delivered += cursor.new_lines(log[start:length])
    assert delivered == log


@given(histories(), st.data())
def test_past_windows_repeat_no_entries(
    history: tuple[list[LogLine], list[int]], data: st.DataObject
) -> None:
    log, lengths = history
    cursor = LogCursor()
    delivered: list[LogLine] = []
    for length in lengths:
        delivered += cursor.new_lines(log[:length])
        start = data.draw(st.integers(0, length))
        assert cursor.new_lines(log[start : data.draw(st.integers(start, length))]) == []
    assert delivered == log


@given(st.lists(st.sampled_from("ab"), max_size=25), st.lists(st.integers(0, 25), max_size=8))
def test_growing_window_needs_no_timestamps(messages: list[str], lengths: list[int]) -> None:
    log = plain(*messages)
    assert deliver(*(log[:length] for length in sorted(lengths)), log) == log


@given(st.integers(0, 25), st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=8))
def test_distinct_entries_need_no_timestamps(size: int, windows: list[tuple[int, int]]) -> None:
    log = plain(*map(str, range(size)))
    cursor = LogCursor()
    delivered: list[LogLine] = []
    for start, length in sorted(windows, key=lambda window: window[1]):
        # An older window that ends before the last delivered entry would look new.
        delivered += cursor.new_lines(log[min(start, len(delivered)) : max(length, len(delivered))])
    delivered += cursor.new_lines(log)
    assert delivered == log


def overlap_by_trying(delivered: list[str], window: list[str]) -> int:
    lengths = range(min(len(delivered), len(window)), -1, -1)
    return next(n for n in lengths if window[:n] == delivered[len(delivered) - n :])


@given(st.lists(st.sampled_from("ab"), max_size=15), st.lists(st.sampled_from("ab"), max_size=15))
def test_longest_overlap_is_not_repeated(first: list[str], second: list[str]) -> None:
    cursor = LogCursor()
    assert cursor.new_lines(plain(*first)) == plain(*first)
    expected = second[overlap_by_trying(first, second) :]
    assert cursor.new_lines(plain(*second)) == plain(*expected)


def test_identical_entries_of_a_window_are_kept() -> None:
    assert deliver(plain("step", "step", "step")) == plain("step", "step", "step")
    same = timed("step") * 3
    assert deliver(same, same) == same


def test_identical_appended_entry_is_delivered() -> None:
    assert deliver(plain("step"), plain("step", "step")) == plain("step", "step")
    same = timed("step")
    assert deliver(same, same * 2, same * 2) == same * 2


def test_late_inserted_entry_is_delivered_alone() -> None:
    first, late, last = timed("a", "late", "b")
    assert deliver([first, last], [first, late, last]) == [first, last, late]


def test_window_kind_may_change_during_a_wait() -> None:
    log = timed("a", "a", "b", "a", "c", "c")
    assert deliver(log[:1], log[1:3], log[:4], log[2:5], log[5:], log) == log


def test_untimed_entries_keep_their_order() -> None:
    log = [*timed("a"), *plain("step", "step"), *timed("b", start=9)]
    assert deliver(log[:2], log[1:3], log) == log


def test_empty_window_gives_no_entries() -> None:
    assert deliver([], plain("a"), [], plain("a"), timed(), plain("a", "b")) == plain("a", "b")


def test_cost_of_long_logs_is_linear() -> None:
    log = plain(*["step"] * 50_000)
    cursor = LogCursor()
    assert cursor.new_lines(log) == log
    assert cursor.new_lines(log[1:] + plain("done")) == plain("done")
    assert cursor.new_lines(plain("done", *["step"] * 50_000, "end"))[-1:] == plain("end")


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (None, []),
        ([], []),
        ([{"message": "a"}], [{"message": "a"}]),
        (
            [{"message": "a", "timestamp": "t", "level": "INFO", "source": "USER", "labels": {}}],
            [{"message": "a", "timestamp": "t", "level": "INFO", "source": "USER", "labels": {}}],
        ),
        (
            [{"message": "a", "timestamp": None, "level": None, "source": None}],
            [{"message": "a"}],
        ),
        ([{"message": ""}], [{"message": ""}]),
        ([{"message": None}], [{"message": "null"}]),
        ([{"message": {"step": 1}}], [{"message": '{"step":1}'}]),
        ([{"message": "a", "timestamp": 17.5}], [{"message": "a", "timestamp": "17.5"}]),
        (
            [{"text": "a", "level": "WARN"}],
            [{"message": '{"text":"a","level":"WARN"}', "level": "WARN"}],
        ),
        (["a", 5, True, None, ["b"]], plain("a", "5", "true", '["b"]')),
        ("a", plain("a")),
        ({"message": "a"}, plain("a")),
    ],
)
def test_any_value_in_logs_becomes_an_entry(raw: Any, lines: list[LogLine]) -> None:
    assert parse_logs(raw) == lines


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(), SCALARS, max_size=2)


@settings(max_examples=50)
@given(JSON | st.lists(st.fixed_dictionaries({"message": JSON}, optional={"timestamp": JSON})))
def test_any_json_becomes_valid_entries(raw: Any) -> None:
    lines = parse_logs(raw)
    if lines is not None:
        assert LogCursor().new_lines(lines) == lines
        assert all(isinstance(line["message"], str) for line in lines)
