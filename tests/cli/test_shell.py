"""The shell: pipes, files, events, signals and the console script."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.cli_runner import Shell, environment, run_program, started

if TYPE_CHECKING:
    from fal_async.emulator import Emulator

SCRIPT = str(Path(sys.executable).with_name("fal-async"))


@pytest.fixture(autouse=True)
def endpoints(fal: Emulator) -> None:
    fal.register("acme/echo", lambda arguments: arguments)
    fal.register("acme/slow", lambda _, job: job.cancellation.wait_sync())


def pipe(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_console_script_is_the_same_program() -> None:
    done = subprocess.run([SCRIPT, "--version"], capture_output=True, check=True, text=True)
    assert done.stdout == run_program("--version").stdout


@pytest.mark.parametrize("command", ["result", "status", "cancel"])
def test_jobs_are_read_from_a_pipe(
    command: str, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handle = shell("submit", "acme/echo", "prompt=a cat").stdout
    (tmp_path / "handle.json").write_text(handle)
    shell("result", handle)
    expected = shell(command, "@handle.json").json
    pipe(monkeypatch, handle)
    assert shell(command).json == expected
    pipe(monkeypatch, handle)
    assert shell(command, "-").json == expected
    assert shell(command, handle).json == expected


def test_result_of_a_pipe_is_the_output(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, shell("submit", "acme/echo", "prompt=a cat").stdout)
    assert shell("result").json == {"prompt": "a cat"}


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ("{}", "the handle must be the JSON object that `submit` printed"),
        ("[1]", "the handle must be a JSON object"),
        ("{", "the handle is not JSON"),
        ('{"application": "acme/echo", "request_id": 7}', "the JSON object that `submit` printed"),
    ],
)
def test_other_input_is_no_handle(document: str, error: str, shell: Shell) -> None:
    outcome = shell("result", document)
    assert outcome.exit_status == 2
    assert error in outcome.stderr


def test_fields_upload_files(shell: Shell, tmp_path: Path, fal: Emulator) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG cat")
    output: Any = shell("run", "acme/echo", "image_url=@cat.png", "at=user@example").json
    assert output["at"] == "user@example"
    (stored,) = fal.files
    assert output["image_url"].endswith("cat.png")
    outcome = shell("run", "acme/echo", "image_url=@dog.png")
    assert (outcome.exit_status, stored is not None) == (2, True)
    assert "KEY:=JSON" in outcome.stderr


def test_uploads_and_downloads_round_trip(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cat.txt").write_text("cat")
    url = shell("upload", "cat.txt").stdout.strip()
    path = shell("download", url, "--to", "copies").stdout.strip()
    assert Path(path).parent.name == "copies"
    assert Path(path).read_text() == "cat"
    (event,) = lines(shell("upload", "cat.txt", "--json").stdout)
    assert event["event"] == "uploaded"
    assert shell("upload", "dog.txt").exit_status in {1, 2}


def test_files_of_outputs_are_saved(shell: Shell, fal: Emulator, tmp_path: Path) -> None:
    fal.register("acme/draw", lambda: {"image": {"url": "data:text/plain,cat", "file_name": "a"}})
    outcome = shell("run", "acme/draw", "--save", "out")
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["cat"]
    assert "saved out" in outcome.stderr
    assert shell("run", "acme/draw", "--save", "out", "--quiet").stderr == ""


def test_events_are_lines_of_json(shell: Shell) -> None:
    events = lines(shell("subscribe", "acme/echo", "prompt=a cat", "--json", "--quiet").stdout)
    assert events[0]["event"] == "enqueued"
    assert {event["status"] for event in events if event["event"] == "status"} >= {"COMPLETED"}
    assert events[-1]["output"] == {"prompt": "a cat"}
    assert events[-1]["request_id"] == events[0]["request_id"]


def test_request_id_is_the_first_line(shell: Shell) -> None:
    outcome = shell("subscribe", "acme/echo")
    assert outcome.stderr.splitlines()[0].startswith("fal_async: request ")
    assert shell("subscribe", "acme/echo", "--quiet").stderr == ""


def test_stream_prints_a_line_for_each_event(shell: Shell, fal: Emulator) -> None:
    def count(arguments: Any) -> Any:
        for step in range(arguments["steps"]):
            yield {"step": step}

    fal.register("acme/count", count)
    outcome = shell("stream", "acme/count", "steps:=3")
    assert lines(outcome.stdout) == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_realtime_sends_lines_and_prints_messages(
    shell: Shell, fal: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @fal.realtime("acme/live")
    def live(arguments: Any) -> Any:
        return {"n": arguments["n"], "image": b"\x89PNG cat"}

    pipe(monkeypatch, '{"n": 1}\n\n{"n": 2}\n')
    outcome = shell("realtime", "acme/live", "--linger", "1", "--save", "frames")
    assert [message["n"] for message in lines(outcome.stdout)] == [1, 2]
    saved = [Path(message["image"]) for message in lines(outcome.stdout)]
    assert [path.read_bytes() for path in saved] == [b"\x89PNG cat"] * 2
    pipe(monkeypatch, "not json\n")
    assert shell("realtime", "acme/live", "--linger", "1").exit_status == 2


def test_webhooks_are_passed_to_the_platform(shell: Shell, fal: Emulator) -> None:
    shell("submit", "acme/echo", "--webhook", "https://example.com/hook")
    assert "fal_webhook=https" in str(fal.requests[-1].query)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_cancel_the_job_and_say_so(
    number: signal.Signals, status: int, fal: Emulator
) -> None:
    with started("subscribe", "acme/slow") as program:
        fal.wait_for(lambda: fal.counters("acme/slow").running == 1)
        program.send_signal(number)
        _, stderr = program.communicate(timeout=60)
    assert program.returncode == status
    assert stderr.splitlines()[-1].startswith("fal_async: cancelled request")
    assert fal.counters("acme/slow").cancelled == 1


def test_completion_is_offered() -> None:
    done = subprocess.run(
        [SCRIPT, "--show-completion", "bash"],
        env=environment(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"),
        capture_output=True,
        check=False,
        text=True,
    )
    assert "_FAL_ASYNC_COMPLETE" in done.stdout


def test_empty_stdin_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, "")
    outcome = shell("result")
    assert (outcome.exit_status, outcome.stderr) == (
        2,
        "fal_async: the handle is missing: stdin is empty\n",
    )
