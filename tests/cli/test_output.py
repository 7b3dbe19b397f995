"""Outputs on terminals and in pipes, and statuses in words and as JSON."""

from __future__ import annotations

import math
import tempfile
from typing import TYPE_CHECKING

import orjson
import pytest

from fal_async._protocol.serialization import decode_json
from fal_async.cli._console import as_json, describe
from fal_async.cli._output import emit
from fal_async.types import Completed, InProgress, Queued, Status, Unknown
from tests.support.cli_runner import Terminal

if TYPE_CHECKING:
    from pathlib import Path


def test_terminal_output_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    emit({"text": "猫 [bold]" + "x" * 200})
    assert orjson.loads(terminal.written) == {"text": "猫 [bold]" + "x" * 200}


def test_bytes_are_saved_instead_of_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    terminal = Terminal(monkeypatch)
    emit(b"\x00\x1b")
    assert terminal.written == ""
    (saved,) = tmp_path.glob("fal_async_*")
    assert saved.read_bytes() == b"\x00\x1b"
    assert f"2 bytes of binary data, saved in {saved}" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_json_survives_terminal_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, encoding=encoding)
    value = {"text": "é猫\U0001f600\ud800\x9b\x7f", "large": 2**70, "nan": [math.inf, None]}
    emit(value)
    assert decode_json(terminal.written) == value
    assert "\x9b" not in terminal.written
    assert ("猫" in terminal.written) is encoding.startswith("utf")


@pytest.mark.parametrize(
    ("status", "words", "json"),
    [
        (Queued(None), "in the queue", {"status": "IN_QUEUE"}),
        (Queued(0), "next in the queue", {"status": "IN_QUEUE", "queue_position": 0}),
        (Queued(1), "in the queue, 1 job ahead", {"status": "IN_QUEUE", "queue_position": 1}),
        (Queued(2), "in the queue, 2 jobs ahead", {"status": "IN_QUEUE", "queue_position": 2}),
        (
            InProgress([{"message": "hello"}]),
            "in progress",
            {"status": "IN_PROGRESS", "logs": [{"message": "hello"}]},
        ),
        (Completed([], {}), "completed", {"status": "COMPLETED", "logs": [], "metrics": {}}),
        (
            Completed([], {"inference_time": 1.25}),
            "completed, after 1.25 s of work",
            {"status": "COMPLETED", "logs": [], "metrics": {"inference_time": 1.25}},
        ),
        (
            Completed([], {}, "out of\nmemory", "runner_server_error"),
            "completed with an error: out of memory",
            {
                "status": "COMPLETED",
                "logs": [],
                "metrics": {},
                "error": "out of\nmemory",
                "error_type": "runner_server_error",
            },
        ),
        (
            Unknown({"status": "PAUSED"}),
            "in a state that this version does not know",
            {"status": "PAUSED"},
        ),
    ],
)
def test_status_in_words_and_json(status: Status, words: str, json: dict[str, object]) -> None:
    assert describe(status) == words
    assert as_json(status) == json
