"""Connection reuse: which requests use idle connections and which are retried."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from fal_async import AsyncClient, Hosts, RetryPolicy, SubmitOutcomeUnknownError
from fal_async._http.connection import IDLE_MARGIN
from fal_async._http.pool import HTTPConnectionPool
from fal_async._http.transmission import Transmission
from fal_async._http.transports import PooledBackend
from fal_async._net.errors import ConnectError, ReadError, WriteError
from tests.support.pool_state import idle
from tests.support.raw_server import OK, RawConnection, RawServer, respond_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METHODS = ["POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
FAILED = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def keeping(seconds: bytes) -> bytes:
    return OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: max=100, timeout=" + seconds + b"\r\n\r\n")


@pytest.fixture
async def transport() -> AsyncIterator[PooledBackend]:
    pooled = PooledBackend(HTTPConnectionPool(keepalive_expiry=1000))
    yield pooled
    await pooled.aclose()


async def send(
    transport: PooledBackend, peer: RawServer, *, repeatable: bool, method: str = "POST"
) -> None:
    headers = {"content-length": "0"}
    opened = await transport.send(
        method, peer.url, headers, b"", {}, Transmission(repeatable=repeatable)
    )
    await opened.read(limit=1000)


def dies_of_the_second(first: bytes, connection: RawConnection) -> None:
    """Respond to one request, read the next one, and close without a response."""
    connection.respond(first)
    connection.request()


@pytest.mark.parametrize("method", METHODS)
async def test_job_on_dying_connection_is_sent_once(method: str) -> None:
    response = JSON if method != "HEAD" else JSON[:-2]

    with RawServer(partial(dies_of_the_second, response)) as peer:
        hosts = Hosts.at(peer.url.rstrip("/"))
        once = RetryPolicy(base_delay=0)
        async with AsyncClient("id:secret", hosts=hosts, retry=once) as client:
            await client.run("acme/app", {}, method=method)
            with pytest.raises(SubmitOutcomeUnknownError) as caught:
                await client.run("acme/app", {"n": 2}, method=method)
        assert [len(connection.requests) for connection in peer.connections] == [2]
        assert (caught.value.stage, caught.value.started) == ("job", None)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("repeatable", [True, False])
async def test_only_the_operation_permits_a_retry(
    transport: PooledBackend, method: str, repeatable: bool
) -> None:
    response = OK if method != "HEAD" else OK[:-2]
    with RawServer(partial(dies_of_the_second, response)) as peer:
        await send(transport, peer, repeatable=repeatable, method=method)
        if repeatable:
            await send(transport, peer, repeatable=True, method=method)
        else:
            with pytest.raises((ReadError, WriteError)):
                await send(transport, peer, repeatable=False, method=method)
        assert len(peer.connections) == (2 if repeatable else 1)


async def test_unreliable_connection_is_avoided(
    transport: PooledBackend,
) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(FAILED if connection.number == 1 else OK)
        respond_with(OK)(connection)

    with RawServer(script) as peer:
        await send(transport, peer, repeatable=True)
        await send(transport, peer, repeatable=False)  # over a new one
        assert (len(peer.connections), idle(transport)) == (2, 2)
        await send(transport, peer, repeatable=False)  # over the one that is well
        assert [len(connection.requests) for connection in peer.connections] == [1, 2]


async def test_success_makes_a_connection_reliable(transport: PooledBackend) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(FAILED)
        respond_with(OK)(connection)

    with RawServer(script) as peer:
        for repeatable in (True, True, False):
            await send(transport, peer, repeatable=repeatable)
        assert [len(connection.requests) for connection in peer.connections] == [3]


@pytest.mark.parametrize(
    ("announced", "idle_for", "repeatable", "is_reused"),
    [
        (b"100", 100 * IDLE_MARGIN**2 - 1, False, True),
        (b"100", 100 * IDLE_MARGIN**2 + 1, False, False),
        (b"100", 100 * IDLE_MARGIN**2 + 1, True, True),
        (b"100", 100 * IDLE_MARGIN + 1, True, False),
        (b"2000", 1000 * IDLE_MARGIN - 1, False, True),
        (b"2000", 1000 * IDLE_MARGIN + 1, False, False),
        (b"2000", 999, True, True),
        (b"2000", 1001, True, False),
        (b"soon", 1000 * IDLE_MARGIN - 1, False, True),
        (b"0", 0, True, False),
    ],
)
async def test_expiring_connection_is_not_reused(
    transport: PooledBackend,
    monkeypatch: pytest.MonkeyPatch,
    announced: bytes,
    idle_for: float,
    repeatable: bool,
    is_reused: bool,
) -> None:
    now = 1000.0
    monkeypatch.setattr("fal_async._http.pool.monotonic", lambda: now)
    with RawServer(respond_with(keeping(announced))) as peer:
        await send(transport, peer, repeatable=True)
        now += idle_for
        await send(transport, peer, repeatable=repeatable)
        assert len(peer.connections) == (1 if is_reused else 2)


async def test_unreliable_connection_frees_its_slot() -> None:
    transport = PooledBackend(HTTPConnectionPool(max_connections=1))
    with RawServer(respond_with(FAILED)) as peer:
        for _ in range(3):
            await send(transport, peer, repeatable=False)
            assert idle(transport) == 1
        assert len(peer.connections) == 3
    await transport.aclose()


async def test_unreliable_connection_is_not_handed_over() -> None:
    transport = PooledBackend(HTTPConnectionPool(max_connections=1))
    with RawServer(lambda connection: connection.respond(FAILED)) as peer:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(partial(send, transport, peer, repeatable=False))
        assert [len(connection.requests) for connection in peer.connections] == [1, 1, 1]
    await transport.aclose()


def _refuses_connections(_: RawConnection) -> None:
    raise AssertionError("nobody connects")


async def test_unsent_requests_are_distinguished(transport: PooledBackend) -> None:
    transmission = Transmission()
    with RawServer(_refuses_connections) as peer:
        url = peer.url
    with pytest.raises(ConnectError):
        await transport.send("POST", url, {}, b"", {}, transmission)
    assert not transmission.sent
    with RawServer(lambda connection: connection.respond(b"")) as peer, pytest.raises(ReadError):
        await transport.send("POST", peer.url, {}, b"", {}, transmission)
    assert transmission.sent
