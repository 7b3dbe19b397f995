from __future__ import annotations

import re

import pytest
from PIL import Image

from fal_async.cli._screen import Screen
from fal_async.types import Completed, InProgress, Queued, Status
from tests.cli.shell import Terminal

LIFE: list[Status] = [
    Queued(2),
    Queued(2),
    Queued(0),
    InProgress([{"message": "loading\n\x1b[31mweights"}]),
    InProgress([{"message": "step 1"}]),
    Completed([{"message": "step 2"}], {}),
]


def told(written: str) -> list[str]:
    """The lines that stay, without colours and times."""
    lines = [line.rpartition("\x1b[2K")[2] for line in written.split("\n")]
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line) for line in lines]
    return re.findall(r"^ +\d+\.\d\d s  (.*)$", "\n".join(plain), re.MULTILINE)


def test_where_nobody_watches_each_change_is_a_line_and_logs_stay_in_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(monkeypatch, "dumb")
    with Screen(terminal).wait() as wait:
        for status in LIFE:
            wait(status)
    assert told(terminal.written) == [
        "in the queue, 2 jobs ahead",
        "in the queue, next in line",
        "in progress",
        "| loading [31mweights",
        "| step 1",
        "| step 2",
        "completed",
    ]


def test_on_a_terminal_the_queue_is_told_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, "xterm-256color")
    with Screen(terminal).wait() as wait:
        for status in LIFE:
            wait(status)
    lines = ["in progress", "| loading [31mweights", "| step 1", "| step 2", "completed"]
    assert [line for line in told(terminal.written) if line in lines] == lines
    assert "jobs ahead\r\n" not in terminal.written
    assert terminal.written.count("\x1b[?25l") == terminal.written.count("\x1b[?25h") == 1


@pytest.mark.parametrize(("kind", "cells"), [("xterm-256color", 54 * 18), ("dumb", 0)])
def test_a_picture_is_shown_in_rough_where_there_are_colours(
    kind: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal(monkeypatch, kind)
    Screen(terminal).thumbnail(Image.new("RGB", (96, 64), "#ff0000"))
    assert terminal.written.count("▀") == cells
