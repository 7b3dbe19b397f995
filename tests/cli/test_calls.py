"""Call commands: arguments, outputs, progress, failures and interruption."""

from __future__ import annotations

import io
import json
import math
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import Response

from fal_async.emulator import AppError, Emulator, Job
from tests.support.cli_runner import Shell, started

if TYPE_CHECKING:
    from pathlib import Path


def echo(arguments: Any, job: Job) -> Any:
    job.log("thinking")
    return arguments


@pytest.fixture(autouse=True)
def endpoints(fal: Emulator) -> None:
    fal.register("acme/echo", echo)


def submit(shell: Shell) -> str:
    handle: Any = shell("submit", "acme/echo", "prompt=a cat").json
    request_id: str = handle["request_id"]
    return request_id


def test_run_prints_output_as_json(shell: Shell, fal: Emulator) -> None:
    outcome = shell("run", "acme/echo", "prompt=7 = seven", "seed:=7", 'size:={"w":1}')
    assert outcome.json == {"prompt": "7 = seven", "seed": 7, "size": {"w": 1}}
    assert (outcome.exit_status, outcome.stderr) == (0, "")
    assert fal.count("run") == 1


@pytest.mark.parametrize("document", ['{"seed": 1, "prompt": "猫"}', "@arguments.json", "-"])
def test_fields_override_the_document(
    document: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = '{"seed": 1, "prompt": "猫"}'.encode()
    (tmp_path / "arguments.json").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    outcome = shell("run", "acme/echo", "--input", document, "seed:=2")
    assert outcome.json == {"seed": 2, "prompt": "猫"}
    assert "猫" in outcome.stdout


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("document", ["@arguments.json", "-"])
def test_document_in_encodings_of_windows(
    encoding: str, document: str, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = '{"prompt": "猫", "large": 18446744073709551617}'.encode(encoding)
    (tmp_path / "arguments.json").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    outcome = shell("run", "acme/echo", "--input", document)
    assert outcome.json == {"prompt": "猫", "large": 2**64 + 1}


def test_unusual_json_survives(shell: Shell, fal: Emulator) -> None:
    odd = '{"large":18446744073709551617,"half":"\\ud800","deep":' + "[" * 300 + "]" * 300 + "}"
    assert shell("run", "acme/echo", "--input", odd).json == json.loads(odd)
    assert shell("run", "acme/echo", f"a:={odd}").json == {"a": json.loads(odd)}

    fal.register("acme/odd", lambda: {"nan": math.nan, "inf": [-math.inf]})
    assert "NaN" in shell("run", "acme/odd").stdout
    assert shell("run", "acme/odd").json["inf"] == [-math.inf]  # type: ignore[index] # a dict


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1000, 1100, 5000])
def test_deeply_nested_output_is_printed(levels: int, shell: Shell, fal: Emulator) -> None:
    body = b"[" * levels + b"]" * levels
    fal.register("acme/deep", lambda: Response(body, media_type="application/json"))
    outcome = shell("run", "acme/deep")
    assert (outcome.exit_status, outcome.stderr) == (0, "")
    assert b"".join(outcome.output.split()) == body


@pytest.mark.parametrize("body", [b"{not json", b"[" * 100_000])
def test_invalid_json_is_printed_unchanged(body: bytes, shell: Shell, fal: Emulator) -> None:
    fal.register("acme/broken", lambda: Response(body, media_type="application/json"))
    outcome = shell("run", "acme/broken")
    assert (outcome.exit_status, outcome.output) == (1, body)
    assert outcome.stderr.startswith("fal_async: the response must be JSON")
    assert len(outcome.stderr.splitlines()) == 1


def test_bytes_are_printed_unchanged(shell: Shell, fal: Emulator) -> None:
    fal.register("acme/bytes", lambda: b"\x00\xff")
    assert shell("run", "acme/bytes").output == b"\x00\xff"


def test_deadline_ends_call_with_one_line(shell: Shell, fal: Emulator) -> None:
    fal.register("acme/slow", lambda _, job: job.cancellation.wait_sync())
    outcome = shell("subscribe", "acme/slow", "--timeout", "0.2")
    assert outcome.exit_status == 1
    assert outcome.stderr.splitlines()[-1].startswith("fal_async: ")
    fal.wait_for(lambda: fal.counters("acme/slow").running == 0)


def test_subscribe_shows_progress_on_stderr(shell: Shell, fal: Emulator) -> None:
    outcome = shell("subscribe", "acme/echo", "prompt=a cat")
    assert outcome.json == {"prompt": "a cat"}
    lines = [line.partition(" s  ")[2] for line in outcome.stderr.splitlines()]
    assert "| thinking" in lines
    assert lines[-1].startswith("completed, after ")


def test_job_is_addressed_by_its_id(shell: Shell) -> None:
    request_id = submit(shell)
    assert shell("result", "acme/echo", request_id).json == {"prompt": "a cat"}
    status: Any = shell("status", "acme/echo", request_id).json
    assert status["status"] == "COMPLETED"
    assert [line["message"] for line in status["logs"]] == ["thinking"]
    assert shell("cancel", "acme/echo", request_id).json == {"status": "ALREADY_COMPLETED"}


def test_failed_job_is_one_line(shell: Shell, fal: Emulator) -> None:
    def refuse() -> None:
        raise AppError(
            422, [{"loc": ["body", "seed"], "msg": "must be even", "type": "value_error"}]
        )

    fal.register("acme/echo", refuse)
    outcome = shell("result", "acme/echo", submit(shell))
    assert (outcome.exit_status, outcome.stdout) == (1, "")
    assert "must be even" in outcome.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_cancels_the_job(fal: Emulator) -> None:
    fal.register("acme/slow", lambda _, job: job.cancellation.wait_sync())
    with started("subscribe", "acme/slow") as program:
        fal.wait_for(lambda: fal.counters("acme/slow").running == 1)
        program.send_signal(signal.SIGINT)
        stdout, stderr = program.communicate(timeout=30)
    assert (program.returncode, stdout) == (130, "")
    assert "Traceback" not in stderr
    assert fal.counters("acme/slow").cancelled == 1


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 100_000])
def test_closed_reader_causes_no_traceback(length: int, fal: Emulator) -> None:
    fal.register("acme/text", lambda: {"text": "cats " * length})
    with started("run", "acme/text") as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        stderr = program.stderr.read()
        assert (program.wait(30), stderr) == (1, "")
