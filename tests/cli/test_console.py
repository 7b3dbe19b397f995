"""Display: statuses, progress lines and images on terminals and in plain streams."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from fal_async.cli._console import Display
from fal_async.cli._demo.images import encode_image
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


def progress_lines(written: str) -> list[str]:
    """Return the lines that remain, without colours and times."""
    lines = [line.rpartition("\x1b[2K")[2] for line in written.split("\n")]
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", line) for line in lines]
    return re.findall(r"^ +\d+\.\d\d s  (.*)$", "\n".join(plain), re.MULTILINE)


def test_plain_stream_gets_a_line_per_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(monkeypatch, "dumb")
    with Display(terminal).progress() as progress:
        for status in LIFE:
            progress(status)
    assert progress_lines(terminal.written) == [
        "in the queue, 2 jobs ahead",
        "next in the queue",
        "in progress",
        "| loading [31mweights",
        "| step 1",
        "| step 2",
        "completed",
    ]


def test_terminal_shows_queue_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, "xterm-256color")
    with Display(terminal).progress() as progress:
        for status in LIFE:
            progress(status)
    lines = ["in progress", "| loading [31mweights", "| step 1", "| step 2", "completed"]
    assert [line for line in progress_lines(terminal.written) if line in lines] == lines
    assert "jobs ahead\r\n" not in terminal.written
    assert terminal.written.count("\x1b[?25l") == terminal.written.count("\x1b[?25h") == 1


@pytest.fixture
def with_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


def content(width: int, height: int) -> bytes:
    return encode_image(Image.new("RGB", (width, height), "#ff0000"), "PNG")


@pytest.mark.parametrize(("kind", "cells"), [("xterm-256color", 54 * 18), ("dumb", 0)])
@pytest.mark.usefixtures("with_colours")
def test_image_is_shown_on_colour_terminals(
    kind: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal(monkeypatch, kind)
    Display(terminal).picture(Image.new("RGB", (96, 64), "#ff0000"))
    assert terminal.written.count("▄") == cells


def test_no_color_hides_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal(monkeypatch, "xterm-256color")
    Display(terminal).picture(Image.new("RGB", (96, 64), "#ff0000"))
    assert terminal.written == ""


@pytest.mark.parametrize(
    ("columns", "cells"), [("80", 16 * 5), ("200", 16 * 5), ("40", 6 * 2), ("7", 1)]
)
@pytest.mark.usefixtures("with_colours")
def test_images_form_a_row_that_fits(
    columns: str, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    terminal = Terminal(monkeypatch, "xterm-256color")
    with Display(terminal).progress() as progress:
        for size in ((24, 16), (48, 32), (96, 64), (300, 200)):
            progress.picture(f"no. {size[0]}", content(*size))
    row = terminal.written.rpartition("\x1b[2K")[2]
    assert row.count("▄") == 4 * cells


def test_image_line_contains_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(monkeypatch, "dumb")
    with Display(terminal).progress() as progress:
        progress.picture("step 1", content(3, 2))
    size = f"3 x 2, {len(content(3, 2)) / 1000:.1f} kB"
    (line,) = progress_lines(terminal.written)
    assert re.fullmatch(rf"step 1: {size}, \d+ ms later", line)
    assert "▄" not in terminal.written
