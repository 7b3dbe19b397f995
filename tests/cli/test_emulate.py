"""The command `emulate`: endpoints served to other processes."""

from __future__ import annotations

import re
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fal_async.cli._emulate import start_demo
from fal_async.sync import SyncClient
from tests.support.cli_runner import Shell, started

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

    from fal_async.emulator import Emulator

pytestmark = pytest.mark.slow

APPS = """
def upper(arguments):
    return {"text": arguments["text"].upper()}

endpoints = {"acme/upper": upper}
"""


def read_environment(server: Popen[str]) -> dict[str, str]:
    """Read the environment variables that a new platform prints."""
    assert server.stdout is not None
    output = ""
    while "FAL_ASYNC_BASE_URL" not in output:
        line = server.stdout.readline()
        assert line, "it ended early"
        output += line
    return dict(re.findall(r"^export (\w+)=(.*)$", output, re.MULTILINE))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_endpoints_are_served_until_ctrl_c(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apps.py").write_text(APPS)
    options = ["--app", "apps:endpoints", "--key", "a:b", "--allow-origin", "https://page.example"]
    with started("emulate", "--port", "0", *options) as server:
        environ = read_environment(server)
        assert environ["FAL_KEY"] == "a:b"
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        assert shell("run", "acme/upper", "text=hello").json == {"text": "HELLO"}
        server.send_signal(signal.SIGINT)
        _, stderr = server.communicate(timeout=30)
    assert (server.returncode, stderr) == (0, "")


def test_limit_and_faults_are_options() -> None:
    fault = "endpoint_id=demo/echo,route=run,status=503,times=2"
    with started("emulate", "--port", "0", "--concurrency", "1", "--fault", fault) as server:
        environ = read_environment(server)
        url, headers = environ["FAL_ASYNC_BASE_URL"], {"Authorization": f"Key {environ['FAL_KEY']}"}
        with httpx.Client(base_url=url, headers=headers) as http:
            run = [http.post("/run/demo/echo", json={}).status_code for _ in range(3)]
            assert run == [503, 503, 200]
            http.post("/queue/demo/slow", json={"seconds": 600})
            refused = http.post("/run/demo/echo", json={})
            assert (refused.status_code, refused.headers["x-fal-needs-retry"]) == (429, "1")
            assert refused.json()["data"] == {"limit": 1}
            counters = http.get("/_emulator/counters").json()
            assert (counters["demo/slow"]["running"], counters["demo/echo"]["executions"]) == (1, 1)


def test_invalid_fault_is_a_usage_error(shell: Shell) -> None:
    result = shell("emulate", "--port", "0", "--fault", "route=nowhere")
    assert result.exit_status != 0
    assert "cannot parse the fault: route" in result.stderr


@pytest.mark.parametrize("first", ["run", "stream", "realtime"])
def test_first_request_may_be_of_any_kind(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"prompt": "a boat at dusk"}
    with started("emulate", "--port", "0") as server:
        for name, value in read_environment(server).items():
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


def test_demo_endpoints_include_the_image_app(shell: Shell, fal: Emulator) -> None:
    start_demo(fal)
    output = shell.read_stdout()
    assert "python -m fal_async subscribe demo/photo prompt='a boat at dusk'" in output
    assert "demo/photo (also a stream, and realtime), demo/echo" in output
    result: Any = shell("run", "demo/photo", "prompt=a boat at dusk").json
    assert result["images"][0]["content_type"] == "image/png"


def test_image_app_needs_pillow(
    shell: Shell, fal: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    start_demo(fal)
    output = shell.read_stdout()
    assert "python -m fal_async subscribe demo/slow" in output
    assert "demo/photo" not in output


def test_port_in_use_is_a_usage_error(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = shell("emulate", "--port", str(taken.getsockname()[1]))
    assert (outcome.exit_status, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("fal_async: cannot listen on 127.0.0.1, port ")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_requests_and_endpoints_are_shown(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apps.py").write_text(APPS)
    with started("emulate", "--port", "0", "--app", "apps:endpoints", "-v") as server:
        for name, value in read_environment(server).items():
            monkeypatch.setenv(name, value)
        assert server.stdout is not None
        assert server.stdout.readline() == "Endpoints  acme/upper\n"
        assert shell("run", "acme/upper", "text=hello").json == {"text": "HELLO"}
        server.send_signal(signal.SIGINT)
        _, stderr = server.communicate(timeout=30)
    (line,) = stderr.splitlines()
    assert re.fullmatch(r"[\d:]{8} POST /run/acme/upper: 200 in \d+ ms \(request [-\w]{36}\)", line)


def test_public_address_is_printed() -> None:
    with started("emulate", "--port", "0", "--public-url", "http://fal:8000/") as server:
        assert read_environment(server)["FAL_ASYNC_BASE_URL"] == "http://fal:8000"
