"""The example service in a process of its own: its routes, and its page in a browser."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
from websockets.sync.client import connect

from examples.endpoints import register
from tests.support.documents import ROOT
from tests.support.http import echo
from tests.support.javascript import NODE, NPM, javascript, run_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fal_async.emulator import Emulator

__all__ = ["javascript"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="passes a socket to the service"),
]

DRAW = "fal-ai/flux/dev"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TENANTS = {
    "token-of-alice": {"name": "alice", "key": "alice:key"},
    "token-of-bob": {"name": "bob"},
}


@pytest.fixture
def platform(fal: Emulator) -> Emulator:
    """An emulator with the endpoints of the examples, and a key for a tenant."""
    register(fal)
    fal.accept_key("alice:key")
    return fal


@dataclass
class Service:
    """The running service."""

    url: str
    process: subprocess.Popen[bytes]
    alice: httpx.Client
    bob: httpx.Client


@pytest.fixture
def service(platform: Emulator, tmp_path: Path) -> Iterator[Service]:
    """The web service, with two tenants."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environ = {
            **os.environ,
            **platform.environ,
            "SERVICE_TENANTS": json.dumps(TENANTS),
            "SERVICE_STORE": str(tmp_path / "service.db"),
            "SERVICE_URL": url,
        }
        command = ["-m", "uvicorn", "--fd", str(listener.fileno()), "--log-level", "error"]
        server = subprocess.Popen(
            [sys.executable, *command, "examples.fastapi_service.app:app"],
            cwd=ROOT,
            env=environ,
            pass_fds=[listener.fileno()],
        )
    alice, bob = (
        httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {token}"},
            timeout=30,  # the first request waits for the start
            trust_env=False,
        )
        for token in TENANTS
    )
    try:
        with alice, bob:
            yield Service(url, server, alice, bob)
    finally:
        server.kill()
        server.wait()


def last_key(platform: Emulator) -> str:
    return platform.requests[-1].headers["authorization"]


def test_images_are_drawn_and_cancelled(platform: Emulator, service: Service) -> None:
    client = service.alice

    assert client.post("/generate", json={"prompt": "a fox"}).json()["url"].startswith("http")
    assert client.post("/generate", json={"prompt": ""}).status_code == 422
    assert last_key(platform) == "Key alice:key"
    assert (
        httpx.post(f"{service.url}/generate", json={"prompt": "a fox"}, timeout=30).status_code
        == 401
    )

    with pytest.raises(httpx.ReadTimeout):  # closes the connection, as a visitor does
        client.post("/generate", json={"prompt": "slow"}, timeout=0.5)
    platform.wait_for(lambda: platform.counters(DRAW).cancelled == 1)


def test_shutdown_cancels_images(platform: Emulator, service: Service) -> None:
    job = service.alice.post("/jobs", json={"prompt": "slow"}).json()["id"]
    platform.wait_for(lambda: platform.counters(DRAW).running == 1)
    with pytest.raises(httpx.ReadTimeout):
        service.bob.post("/generate", json={"prompt": "slow"}, timeout=0.5)

    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) in {0, -signal.SIGTERM}
    platform.wait_for(lambda: platform.counters(DRAW).cancelled == 1)
    assert platform.jobs[job].status == "IN_PROGRESS"  # a job of the queue outlives the service


def test_job_is_read_by_its_tenant(platform: Emulator, service: Service) -> None:
    job = service.alice.post("/jobs", json={"prompt": "a fox"}).json()["id"]
    platform.wait_for(lambda: platform.counters(DRAW).completed == 1)

    assert service.alice.get(f"/jobs/{job}").json()["output"]["seed"] == 7
    assert service.bob.get(f"/jobs/{job}").status_code == 404
    target = {"x-fal-target-url": f"https://queue.fal.run/fal-ai/flux/requests/{job}"}
    assert service.alice.get("/api/fal/proxy", headers=target).json()["seed"] == 7
    assert service.bob.get("/api/fal/proxy", headers=target).status_code == 404


def test_event_of_webhook_is_kept(platform: Emulator, service: Service) -> None:
    job = service.alice.post("/jobs", json={"prompt": "a fox"}).json()["id"]
    platform.wait_for(lambda: platform.webhooks[job].state == "delivered")

    assert service.alice.get(f"/jobs/{job}").json()["output"]["seed"] == 7
    assert (platform.count("status"), platform.count("result")) == (0, 0)
    forged = platform.sign({"seed": 9}, request_id=job, tampered=True)
    response = httpx.post(f"{service.url}/webhook", content=forged.body, headers=forged.headers)
    assert response.status_code == 401
    assert service.alice.get(f"/jobs/{job}").json()["output"]["seed"] == 7


def test_streams_and_sessions_are_relayed(platform: Emulator, service: Service) -> None:
    events = service.alice.get("/previews", params={"prompt": "foxes"})
    assert events.text.count("data: ") == 4
    assert '"Foxes are red."' in events.text

    url = f"{service.url.replace('http', 'ws')}/live"
    headers = {"authorization": "Bearer token-of-alice"}
    with connect(url, additional_headers=headers) as session:
        session.send(json.dumps({"prompt": "a fox"}))
        assert json.loads(session.recv(10)) == {"prompt": "a fox"}


def test_file_is_passed_on(platform: Emulator, service: Service) -> None:
    file = ("a fox.png", b"a fox", "image/png")
    url = service.alice.post("/files", files={"file": file}).json()["url"]

    assert platform.files[url].content == b"a fox"
    assert platform.files[url].content_type == "image/png"


@pytest.mark.skipif(not (NODE and NPM and CHROMIUM), reason="node or chromium is not installed")
def test_page_works_in_a_browser(platform: Emulator, service: Service, javascript: Path) -> None:
    platform.register("fal-ai/secret", echo)
    environ = {
        "CHROMIUM": str(CHROMIUM),
        "EMULATOR_URL": platform.url,
        "SERVICE_URL": service.url,
        "TOKEN": "token-of-alice",
    }
    seen = run_script(javascript, "browser.cjs", timeout=100, **environ)
    assert platform.files[seen.pop("upload")].content == b"hello"
    assert seen == {
        "run": 7,
        "polling": {"seed": 7, "logged": True},
        "streaming": {"seed": 7, "logged": True},
        "stream": ["Foxes", "Foxes are", "Foxes are red", "Foxes are red."],
        "live": {"prompt": "a fox"},
        "refused": {"status": 400, "body": "Invalid request"},
    }
    assert platform.counters("fal-ai/secret").executions == 0
    keys = {
        request.headers["authorization"] for request in platform.requests if request.route == "run"
    }
    assert keys == {"Key alice:key"}
