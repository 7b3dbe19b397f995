"""Connection pool: reuse, limits and expiry."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from fal_async._http.httpx_transport import PooledTransport
from tests.support.pool_state import idle, in_use, origins, waiting
from tests.support.raw_server import OK, RawConnection, RawServer, respond_with

if TYPE_CHECKING:
    from collections.abc import Callable


async def ask(transport: PooledTransport, url: str, body: bytes = b"") -> bytes:
    request = httpx.Request("POST", url, content=body)
    return await (await transport.handle_async_request(request)).aread()


async def send_concurrently(transport: PooledTransport, url: str, times: int) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(ask, transport, url)


def together(times: int) -> Callable[[RawConnection], None]:
    """Return a script that delays the first responses until all requests have arrived."""
    barrier = threading.Barrier(times)

    def script(connection: RawConnection) -> None:
        connection.request()
        barrier.wait(10)
        connection.send(OK)
        respond_with(OK)(connection)

    return script


async def test_most_recent_connection_is_reused_first(transport: PooledTransport) -> None:
    with RawServer(together(3)) as peer:
        await send_concurrently(transport, peer.url, 3)
        for _ in range(5):
            await ask(transport, peer.url)
        assert sorted(len(connection.requests) for connection in peer.connections) == [1, 1, 6]
        assert (in_use(transport), idle(transport)) == (0, 3)


async def test_longest_waiter_is_served_first() -> None:
    go_on = threading.Event()

    def script(connection: RawConnection) -> None:
        while connection.request():
            assert go_on.wait(10)
            connection.send(OK)

    with RawServer(script) as peer:
        async with PooledTransport(max_connections=1) as transport:
            async with anyio.create_task_group() as group:
                for number in range(10):
                    group.start_soon(ask, transport, peer.url, b"%d" % number)
                    await anyio.wait_all_tasks_blocked()
                assert (in_use(transport), waiting(transport)) == (1, 9)
                go_on.set()
            assert [got[-1:] for got in peer.connections[0].requests] == [
                b"%d" % n for n in range(10)
            ]


async def test_connection_lost_in_handover_is_not_used() -> None:
    """The server closes after its response, before the next waiter can write."""
    go_on = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.request()
        assert go_on.wait(10)
        connection.send(OK)

    with RawServer(script) as peer:
        async with PooledTransport(max_connections=1) as transport:
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(_send_or_fail, transport, peer.url)
                await anyio.wait_all_tasks_blocked()
                go_on.set()
            assert (in_use(transport), waiting(transport)) == (0, 0)


async def _send_or_fail(transport: PooledTransport, url: str) -> None:
    try:
        await ask(transport, url)
    except (httpx.ReadError, httpx.WriteError):
        return  # the connection closed after it was checked


async def test_limit_applies_to_each_origin() -> None:
    with RawServer(together(2)) as one, RawServer(together(2)) as other:
        async with PooledTransport(max_connections=2) as transport:
            async with anyio.create_task_group() as group:
                group.start_soon(send_concurrently, transport, one.url, 2)
                group.start_soon(send_concurrently, transport, other.url, 2)
            assert (len(one.connections), len(other.connections)) == (2, 2)


async def test_failed_connect_releases_its_slot() -> None:
    async with PooledTransport(max_connections=1) as transport:
        failures = 0

        async def fail() -> None:
            nonlocal failures
            with pytest.raises(httpx.ConnectError):
                await ask(transport, "http://127.0.0.1:1/")
            failures += 1

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(fail)
        assert failures == 5
        assert origins(transport) == []


async def test_expired_connection_is_not_reused() -> None:
    with RawServer(respond_with(OK)) as peer:
        async with PooledTransport(keepalive_expiry=0) as transport:
            for _ in range(3):
                await ask(transport, peer.url)
            assert len(peer.connections) == 3
            assert idle(transport) == 1


async def test_idle_connections_of_all_origins_expire() -> None:
    with RawServer(respond_with(OK)) as forgotten, RawServer(respond_with(OK)) as other:
        async with PooledTransport(keepalive_expiry=0) as transport:
            await ask(transport, forgotten.url)
            await ask(transport, other.url)
            await anyio.to_thread.run_sync(forgotten.wait_ended)
            assert len(origins(transport)) == 1


async def test_unused_origin_is_removed(transport: PooledTransport) -> None:
    with RawServer(lambda connection: connection.respond(OK.replace(b"1.1", b"1.0"))) as peer:
        await ask(transport, peer.url)
        assert origins(transport) == []


@pytest.mark.parametrize("url", ["ftp://host/", "http:///path", "/path", "ws://host/"])
async def test_only_http_urls_with_host_are_accepted(transport: PooledTransport, url: str) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await ask(transport, url)


def test_connection_limit_must_be_positive() -> None:
    with pytest.raises(ValueError, match="max_connections"):
        PooledTransport(max_connections=0)


async def test_requests_need_no_timeouts(transport: PooledTransport) -> None:
    with RawServer(respond_with(OK)) as peer:
        for timeout in ({}, {"read": None}, {"connect": 5, "read": 5, "write": 5, "pool": 5}):
            request = httpx.Request("GET", peer.url, extensions={"timeout": timeout})
            assert await (await transport.handle_async_request(request)).aread() == b"ok"


async def test_small_response_is_read_without_waiting(transport: PooledTransport) -> None:
    with RawServer(respond_with(OK)) as peer:
        response = await transport.handle_async_request(httpx.Request("GET", peer.url))
        assert response.read() == b"ok"
        assert (in_use(transport), idle(transport)) == (0, 1)


async def test_closed_response_cannot_be_read(transport: PooledTransport) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(OK[:-1])
        connection.wait_closed()

    with RawServer(script) as peer:
        response = await transport.handle_async_request(httpx.Request("GET", peer.url))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        chunks = aiter(response.stream)
        assert await anext(chunks) == b"o"
        await response.aclose()
        with pytest.raises(httpx.ReadError, match="closed before its end"):
            await anext(chunks)
        peer.wait_ended()
