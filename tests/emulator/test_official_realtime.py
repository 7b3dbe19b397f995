"""WebSockets of the official clients, unmodified except for the platform addresses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import fal_client
import fal_client.client
import pytest

from fal_async.emulator import Fault, Socket
from tests.support.http import Arguments, echo
from tests.support.javascript import NODE, NPM, run_script

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from fal_async.emulator import Emulator


@pytest.fixture
def official(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[fal_client.SyncClient]:
    rebase(fal, monkeypatch)
    client = fal_client.SyncClient(key=fal.key)
    yield client
    client._client.close()


def rebase(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    sockets = f"ws{fal.hosts.run.removeprefix('http')}/"
    monkeypatch.setattr(fal_client.client, "REALTIME_URL_FORMAT", sockets)
    monkeypatch.setattr(fal_client.client, "REST_URL", fal.hosts.rest)


async def count(arguments: Arguments) -> AsyncGenerator[Arguments]:
    for n in range(arguments["to"]):
        yield {"n": n}


async def repeat(socket: Socket) -> None:
    async for message in socket:
        await socket.send(message)


@pytest.mark.parametrize("use_jwt", [True, False])
def test_official_client_holds_a_session(
    fal: Emulator, official: fal_client.SyncClient, use_jwt: bool
) -> None:
    fal.realtime("acme/live", timings=True)(echo)
    with official.realtime("acme/live", use_jwt=use_jwt, max_buffering=5) as session:
        for n in range(3):
            session.send({"n": n, "raw": b"\x00\xff"})
            assert session.recv() == {"n": n, "raw": b"\x00\xff"}
    assert fal.count("token") == use_jwt
    assert "max_buffering=5" in fal.requests[-1].query


def test_session_end_raises_an_error(fal: Emulator, official: fal_client.SyncClient) -> None:
    fal.realtime("acme/live")(count)
    with official.realtime("acme/live") as session:
        session.send({"to": 2})
        assert [session.recv(), session.recv()] == [{"n": 0}, {"n": 1}]
        with pytest.raises(fal_client.client.RealtimeError, match="TIMEOUT: no inputs"):
            session.recv()
        assert session.recv() is None


def test_refused_token_is_returned_as_a_result(
    fal: Emulator, official: fal_client.SyncClient
) -> None:
    fal.realtime("acme/other")(echo)
    fal.realtime("acme/live")(echo)
    fal.fail(None, Fault(route="token", transform=lambda token: f"{token}x"))
    with official.realtime("acme/live") as session:
        assert session.recv() == {"status": "error", "error": "Unauthorized"}
        assert session.recv() is None


def test_lost_connection_raises_an_error(fal: Emulator, official: fal_client.SyncClient) -> None:
    fal.realtime("acme/live")(echo)
    fal.fail("acme/live", Fault(route="realtime", cut=3))
    with official.realtime("acme/live") as session:
        session.send({"a": 1})
        with pytest.raises(fal_client.client.RealtimeError, match="CONNECTION_CLOSED"):
            session.recv()


def test_official_client_opens_app_websocket(
    fal: Emulator, official: fal_client.SyncClient
) -> None:
    fal.websocket("acme/socket")(repeat)
    with official.ws_connect("acme/socket", path="/chat") as socket:
        for message in ("text", b"\x00\xff"):
            socket.send(message)
            assert socket.recv() == message


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_async_client_holds_a_session(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    rebase(fal, monkeypatch)
    fal.realtime("acme/live")(echo)
    client = fal_client.AsyncClient(key=fal.key)
    async with asyncio.timeout(10), client.realtime("acme/live", use_jwt=False) as session:
        for n in range(3):
            await session.send({"n": n})
            assert await session.recv() == {"n": n}


@pytest.mark.slow
@pytest.mark.skipif(not (NODE and NPM), reason="node is not installed")
def test_javascript_client_works_in_pages(fal: Emulator, javascript: Path) -> None:
    @fal.realtime("acme/crash")
    def crash(arguments: Arguments) -> Arguments:
        raise ValueError("boom")

    fal.register("acme/count", count)
    fal.realtime("acme/live")(echo)
    fal.realtime("acme/closed")(echo)
    fal.fail("acme/closed", Fault(route="realtime", close=1011, body="no more"))
    command = ["--experimental-websocket", "realtime.cjs"]
    environ = {"EMULATOR_URL": fal.url, "FAL_KEY": fal.key}
    heard = run_script(javascript, *command, timeout=30, **environ)
    assert heard["streamed"] == [{"n": 0}, {"n": 1}]
    assert [result["n"] for result in heard["echo"]["results"]] == [0, 1, 2]
    assert heard["echo"]["errors"] == []
    assert "boom" in heard["crash"]["errors"][0]["message"]
    assert heard["closed"]["errors"][0]["status"] == 1011
