"""Refusal of the real hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fal_async.pytest_plugin._network import Network, RealHostError

if TYPE_CHECKING:
    from tests.pytest_plugin.conftest import Project


@pytest.mark.parametrize(
    ("allowed", "host", "refused"),
    [
        ((), "fal.run", True),
        ((), "queue.fal.run.", True),
        ((), b"V3.FAL.MEDIA", True),
        ((), "rest.fal.ai", True),
        ((), "example.com", False),
        ((), "not-fal.run", False),
        ((), None, False),
        (("*",), "fal.run", False),
        (("fal.run",), "fal.run", False),
        (("fal.run",), "queue.fal.run", True),
        (("*.fal.run",), "queue.fal.run", False),
        (("*.fal.run",), "fal.run", True),
    ],
)
def test_names_of_real_hosts_are_refused(
    monkeypatch: pytest.MonkeyPatch, allowed: tuple[str, ...], host: str | bytes, refused: bool
) -> None:
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [])
    network = Network(allowed)
    network.block()
    try:
        if refused:
            with pytest.raises(RealHostError, match="must not reach the real platform"):
                socket.getaddrinfo(host, 443)
        else:
            assert socket.getaddrinfo(host, 443) == []
    finally:
        network.unblock()


def test_proxies_are_bypassed_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setenv("no_proxy", "intern.example")
    monkeypatch.delenv("NO_PROXY", raising=False)
    network = Network([])
    network.block()
    assert os.environ["no_proxy"].startswith("intern.example,fal.run,.fal.run,")
    assert ".fal.media" in os.environ["NO_PROXY"]
    network.unblock()
    assert os.environ["no_proxy"] == "intern.example"
    assert "NO_PROXY" not in os.environ


TESTS = """
import asyncio
import fal_async
import fal_async.sync
import fal_client
import httpx
import pytest

from fal_async.pytest_plugin import RealHostError

@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("FAL_KEY", "a:b")

def test_blocking_call():
    fal_async.sync.run("acme/app", {})

def test_async_call():
    asyncio.run(fal_async.run("acme/app", {}))

def test_submit():
    fal_async.sync.submit("acme/app", {})

def test_websocket():
    with fal_async.sync.realtime("acme/app") as session:
        session.recv()

def test_official_client():
    fal_client.SyncClient(key="a:b").run("acme/app", {})

def test_official_async_client():
    asyncio.run(fal_client.AsyncClient(key="a:b").run("acme/app", {}))

def test_transport():
    async def call():
        async with httpx.AsyncClient(transport=fal_async.PooledTransport()) as client:
            await client.post("https://queue.fal.run/acme/app")
    asyncio.run(call())
"""


@pytest.mark.slow
def test_no_client_reaches_a_real_host(project: Project) -> None:
    project.write(test_real=TESTS)
    run = project.run("-W", "ignore::ResourceWarning")
    assert run.outcomes == {"failed": 7}, run.output
    assert run.output.count("RealHostError: cannot connect to ") >= 7
    assert "--fal-allow-hosts=fal.run" in run.output
    # A proxy would resolve the names itself.
    run = project.run("-W", "ignore::ResourceWarning", HTTPS_PROXY="http://127.0.0.1:9")
    assert run.output.count("RealHostError: cannot connect to ") >= 7


@pytest.mark.slow
def test_hosts_are_allowed_by_name(project: Project) -> None:
    project.write(
        test_allowed="""
        import socket
        import pytest

        def lookup(host):
            try:
                socket.getaddrinfo(host, 443)
            except OSError:  # without a network
                pass

        def test_lookup():
            lookup("fal.run")
            lookup("queue.fal.run")
        """
    )
    assert project.run().outcomes == {"failed": 1}
    assert project.run("--fal-allow-hosts", "fal.run,*.fal.run").outcomes == {"passed": 1}
    project.configure("fal_allow_hosts = *")
    assert project.run().outcomes == {"passed": 1}


@pytest.mark.slow
def test_mocks_of_httpx_still_apply(project: Project) -> None:
    project.write(
        test_mock="""
        import fal_async.sync
        import httpx
        import respx

        @respx.mock
        def test_mock(monkeypatch):
            monkeypatch.setenv("FAL_KEY", "a:b")
            respx.post("https://fal.run/acme/app").mock(httpx.Response(200, json={"a": 1}))
            assert fal_async.sync.run("acme/app", {}) == {"a": 1}
        """
    )
    run = project.run()
    assert run.outcomes == {"passed": 1}, run.output
