"""The apps that `emulate` serves: runners, functions, emulators and the demo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import fal_async
from fal_async.cli._emulate import load
from fal_async.emulator import Emulator
from fal_async.errors import InvalidRequestError
from tests.support.http import echo, make_client

SERVE = """
import sys
from fal_async.cli._emulate import serve

def on_started(fal):
    print(fal.url, fal.key, flush=True)

serve(*sys.argv[1:], port=0, on_started=on_started)
"""

configured = Emulator(key="own:key")
runners = {"acme/echo": echo}
something = 5


def add_endpoints(fal: Emulator) -> None:
    fal.register("acme/echo", echo)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_demo_is_served_until_terminated(how: signal.Signals) -> None:
    command = [sys.executable, "-X", "dev", "-c", SERVE]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url, key = server.stdout.readline().split()
        headers = {"Authorization": f"Key {key}"}
        assert httpx.post(f"{url}/run/demo/echo", json={"a": 1}, headers=headers).json() == {"a": 1}
        server.send_signal(how)
        stdout, stderr = server.communicate(timeout=20)
    assert (server.returncode, stdout, stderr) == (0, "", "")


@pytest.mark.slow
def test_app_is_imported_from_working_directory(tmp_path: Path) -> None:
    (tmp_path / "my_app.py").write_text("runners = {'acme/two': lambda arguments: 2}\n")
    command = [sys.executable, "-P", "-c", SERVE, "my_app:runners"]
    environ = os.environ | {"PYTHONPATH": str(Path(fal_async.__path__[0]).parent)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url, key = server.stdout.readline().split()
        headers = {"Authorization": f"Key {key}"}
        assert httpx.post(f"{url}/run/acme/two", json={}, headers=headers).json() == 2
        server.terminate()


@pytest.mark.parametrize("name", ["runners", "add_endpoints"])
def test_app_may_be_runners_or_a_function(name: str) -> None:
    with load(f"{__name__}:{name}") as fal, make_client(fal) as http:
        assert http.post("/run/acme/echo", json={"a": 1}).json() == {"a": 1}


def test_app_may_be_an_emulator() -> None:
    assert load(f"{__name__}:configured").key == "own:key"


@pytest.mark.parametrize("options", [{"key": "a:b"}, {"allow_origins": ["https://a.example"]}])
def test_emulator_keeps_its_own_settings(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="constructor"):
        load(f"{__name__}:configured", **options)


def test_key_and_origins_are_settings() -> None:
    page = {"Origin": "https://page.example"}
    fal = load(f"{__name__}:runners", key="a:b", allow_origins=["https://page.example"])
    assert fal.key == "a:b"
    with fal, make_client(fal) as http:
        assert http.post("/run/acme/echo", json={}, headers=page).status_code == 200


@pytest.mark.parametrize(
    ("app", "text"),
    [
        ("nothing", "module:attribute"),
        ("no_such_module:app", "No module named 'no_such_module'"),
        ("json:no_such_name", "no attribute 'no_such_name'"),
        (f"{__name__}:something", "got int"),
    ],
)
def test_invalid_app_is_an_error(app: str, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        load(app)


def test_demo_endpoints_work() -> None:
    with load(None) as fal, make_client(fal) as http:
        job = http.post("/queue/demo/slow", json={"steps": 2, "seconds": 0}).json()
        events_text = http.get(job["status_url"] + "/stream?logs=1").text
        assert "step 1 of 2" in events_text
        assert "step 2 of 2" in events_text
        assert http.get(job["response_url"]).json() == {"steps": 2, "seconds": 0}
        assert http.post("/run/demo/fail", json={}).status_code == 422
        assert http.post("/run/demo/fail", json={"status": 403}).status_code == 403
        events = http.post("/run/demo/stream", json={"text": "a b"}).text
        assert events == (
            'data: {"output":"a","partial":true,"error":null}\n\n'
            'data: {"output":"a b","partial":false,"error":null}\n\n'
        )
