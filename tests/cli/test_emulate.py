from __future__ import annotations

import re
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fal_async.cli._emulate import announce_demo
from fal_async.sync import SyncClient
from tests.support.cli_runner import Shell, started

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

    from fal_async.emulator import Emulator

APPS = """
def upper(arguments):
    return {"text": arguments["text"].upper()}

endpoints = {"acme/upper": upper}
"""


def environment_of(server: Popen[str]) -> dict[str, str]:
    """What a platform that was just started says how to reach it."""
    assert server.stdout is not None
    told = ""
    while "FAL_ASYNC_BASE_URL" not in told:
        line = server.stdout.readline()
        assert line, "it ended early"
        told += line
    return dict(re.findall(r"^export (\w+)=(.*)$", told, re.MULTILINE))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_it_serves_endpoints_to_other_processes_until_ctrl_c(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apps.py").write_text(APPS)
    options = ["--app", "apps:endpoints", "--key", "a:b", "--allow-origin", "https://page.example"]
    with started("emulate", "--port", "0", *options) as server:
        environ = environment_of(server)
        assert environ["FAL_KEY"] == "a:b"
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        assert shell("run", "acme/upper", "text=hello").json == {"text": "HELLO"}
        server.send_signal(signal.SIGINT)
        _, stderr = server.communicate(timeout=30)
    assert (server.returncode, stderr) == (0, "")


@pytest.mark.parametrize("first", ["run", "stream", "realtime"])
def test_a_new_process_draws_whatever_it_is_asked_for_first(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"prompt": "a boat at dusk"}
    with started("emulate", "--port", "0") as server:
        for name, value in environment_of(server).items():
            monkeypatch.setenv(name, value)
        with SyncClient() as client:
            match first:
                case "run":
                    assert client.run("demo/photo", arguments)["images"]
                case "stream":
                    assert [event["step"] for event in client.stream("demo/photo", arguments)]
                case _:
                    with client.realtime("demo/photo") as session:
                        session.send(arguments)
                        assert session.recv()["images"]


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
