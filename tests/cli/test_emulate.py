from __future__ import annotations

import re
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fal_async.cli._emulate import announce_demo
from tests.cli.shell import Shell, started

if TYPE_CHECKING:
    from pathlib import Path

    from fal_async.emulator import Emulator

APPS = """
def upper(arguments):
    return {"text": arguments["text"].upper()}

endpoints = {"acme/upper": upper}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_it_serves_endpoints_to_other_processes_until_ctrl_c(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apps.py").write_text(APPS)
    with started("emulate", "--port", "0", "--app", "apps:endpoints") as server:
        assert server.stdout is not None
        told = ""
        while "FAL_ASYNC_BASE_URL" not in told:
            line = server.stdout.readline()
            assert line, "it ended early"
            told += line
        for name, value in re.findall(r"^export (\w+)=(.*)$", told, re.MULTILINE):
            monkeypatch.setenv(name, value)
        assert shell("run", "acme/upper", "text=hello").json == {"text": "HELLO"}
        server.send_signal(signal.SIGINT)
        _, stderr = server.communicate(timeout=30)
    assert (server.returncode, stderr) == (0, "")


def test_by_itself_it_serves_a_photographer_too(shell: Shell, fal: Emulator) -> None:
    announce_demo(fal)
    said = shell.said()
    assert "python -m fal_async subscribe demo/photo prompt='a boat at dusk'" in said
    assert "demo/photo (also a stream, and realtime), demo/echo" in said
    output: Any = shell("run", "demo/photo", "prompt=a boat at dusk").json
    assert output["images"][0]["content_type"] == "image/png"


def test_without_pillow_there_is_no_photographer(
    shell: Shell, fal: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    announce_demo(fal)
    said = shell.said()
    assert "python -m fal_async subscribe demo/slow" in said
    assert "demo/photo" not in said


def test_a_port_that_is_taken_is_bad_input(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = shell("emulate", "--port", str(taken.getsockname()[1]))
    assert (outcome.exit_status, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("fal_async: cannot listen at 127.0.0.1, port ")
