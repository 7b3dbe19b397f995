from __future__ import annotations

import re

import pytest
from PIL import Image

from fal_async.cli._console import Display
from fal_async.cli._demo.images import encoded
from fal_async.types import Completed, InProgress, Queued, Status
from tests.support.cli_runner import Terminal

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
    with Display(terminal).wait() as wait:
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
    with Display(terminal).wait() as wait:
        for status in LIFE:
            wait(status)
    lines = ["in progress", "| loading [31mweights", "| step 1", "| step 2", "completed"]
    assert [line for line in told(terminal.written) if line in lines] == lines
    assert "jobs ahead\r\n" not in terminal.written
    assert terminal.written.count("\x1b[?25l") == terminal.written.count("\x1b[?25h") == 1


@pytest.fixture
def colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


def content(width: int, height: int) -> bytes:
    return encoded(Image.new("RGB", (width, height), "#ff0000"), "PNG")


@pytest.mark.parametrize(("kind", "cells"), [("xterm-256color", 54 * 18), ("dumb", 0)])
@pytest.mark.usefixtures("colourful")
def test_a_picture_is_shown_in_rough_where_there_are_colours(
    kind: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal(monkeypatch, kind)
    Display(terminal).picture(Image.new("RGB", (96, 64), "#ff0000"))
    assert terminal.written.count("▀") == cells


def test_a_terminal_that_shall_show_no_colours_shows_no_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal(monkeypatch, "xterm-256color")
    Display(terminal).picture(Image.new("RGB", (96, 64), "#ff0000"))
    assert terminal.written == ""


@pytest.mark.parametrize(
    ("columns", "cells"), [("80", 16 * 5), ("200", 16 * 5), ("40", 6 * 2), ("7", 1)]
)
@pytest.mark.usefixtures("colourful")
def test_pictures_that_come_stand_in_a_row_that_fits_and_stay(
    columns: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    terminal = Terminal(monkeypatch, "xterm-256color")
    with Display(terminal).wait() as wait:
        for size in ((24, 16), (48, 32), (96, 64), (300, 200)):
            wait.picture(f"no. {size[0]}", content(*size))
    row = terminal.written.rpartition("\x1b[2K")[2]
    assert row.count("▀") == 4 * cells


def test_each_picture_that_comes_is_a_line_with_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(monkeypatch, "dumb")
    with Display(terminal).wait() as wait:
        wait.picture("step 1", content(3, 2))
    size = f"3 x 2, {len(content(3, 2)) / 1000:.1f} kB"
    (line,) = told(terminal.written)
    assert re.fullmatch(rf"step 1: {size}, \d+ ms later", line)
    assert "▀" not in terminal.written
