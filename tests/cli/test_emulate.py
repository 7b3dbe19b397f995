from __future__ import annotations

import re
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.shell import Shell, started

if TYPE_CHECKING:
    from pathlib import Path

APPS = """
def upper(arguments):
    return {"text": arguments["text"].upper()}

async def greet(scope, receive, send):
    body = b'"hello from ' + scope["path"].encode() + b'"'
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

endpoints = {"acme/upper": upper, "acme/greet": greet}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_it_serves_endpoints_to_other_processes_until_ctrl_c(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apps.py").write_text(APPS)
    with started("emulate", "--port", "0", "--app", "apps:endpoints") as server:
        assert server.stdout is not None
        told = ""
        while "python -m fal_async" not in told:
            line = server.stdout.readline()
            assert line, "it ended early"
            told += line
        for name, value in re.findall(r"^export (\w+)=(.*)$", told, re.MULTILINE):
            monkeypatch.setenv(name, value)
        assert shell("run", "acme/upper", "text=hello").json == {"text": "HELLO"}
        assert shell("subscribe", "acme/greet").json == "hello from /"
        server.send_signal(signal.SIGINT)
        _, stderr = server.communicate(timeout=30)
    assert (server.returncode, stderr) == (130, "")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is interrupted once it stands."""

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fal_async.cli._emulate.time.sleep", interrupt)


@pytest.mark.usefixtures("impatient")
def test_by_itself_it_serves_the_endpoints_of_the_demo(shell: Shell) -> None:
    outcome = shell("emulate", "--port", "0")
    assert (outcome.exit_status, outcome.stderr) == (130, "")
    assert "with demo/photo, demo/echo; Ctrl-C ends it" in outcome.stdout


@pytest.mark.usefixtures("impatient")
def test_an_app_without_an_id_is_served_as_local(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more_apps.py").write_text(APPS)
    monkeypatch.syspath_prepend(tmp_path)
    outcome = shell("emulate", "--port", "0", "--app", "more_apps:greet")
    assert "python -m fal_async subscribe local/greet" in outcome.stdout


def test_a_port_that_is_taken_is_bad_input(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = shell("emulate", "--port", str(taken.getsockname()[1]))
    assert (outcome.exit_status, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("fal_async: cannot listen at 127.0.0.1, port ")
