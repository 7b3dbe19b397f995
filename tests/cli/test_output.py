from __future__ import annotations

import orjson
import pytest

from fal_async.cli._output import emit
from fal_async.cli._problems import BadInputError
from fal_async.cli._words import as_json, describe
from fal_async.types import Completed, InProgress, Queued, Status, Unknown
from tests.cli.shell import Terminal


def test_on_a_terminal_an_output_is_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    emit({"text": "猫 [bold]" + "x" * 200})
    assert orjson.loads(terminal.written) == {"text": "猫 [bold]" + "x" * 200}


def test_bytes_are_not_written_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    with pytest.raises(BadInputError, match="2 bytes"):
        emit(b"\x00\x1b")
    assert terminal.written == ""


@pytest.mark.parametrize(
    ("status", "words", "json"),
    [
        (Queued(None), "in the queue", {"status": "IN_QUEUE"}),
        (Queued(0), "in the queue, next in line", {"status": "IN_QUEUE", "queue_position": 0}),
        (Queued(1), "in the queue, 1 job ahead", {"status": "IN_QUEUE", "queue_position": 1}),
        (Queued(2), "in the queue, 2 jobs ahead", {"status": "IN_QUEUE", "queue_position": 2}),
        (
            InProgress([{"message": "hello"}]),
            "in progress",
            {"status": "IN_PROGRESS", "logs": [{"message": "hello"}]},
        ),
        (Completed(None, {}), "completed", {"status": "COMPLETED", "metrics": {}}),
        (
            Completed([], {"inference_time": 1.25}),
            "completed, after 1.25 s of work",
            {"status": "COMPLETED", "logs": [], "metrics": {"inference_time": 1.25}},
        ),
        (
            Completed(None, {}, "out of\nmemory", "runner_server_error"),
            "completed with an error: out of memory",
            {
                "status": "COMPLETED",
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
def test_a_status_in_words_and_in_json(status: Status, words: str, json: dict[str, object]) -> None:
    assert describe(status) == words
    assert as_json(status) == json
