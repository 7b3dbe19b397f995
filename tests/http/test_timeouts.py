"""Timeouts: each phase has its own error and releases its resources."""

from __future__ import annotations

import socket
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from fal_async._http.httpx_transport import PooledTransport
from tests.support.pool_state import idle, in_use, waiting
from tests.support.raw_server import OK, RawConnection, RawServer, respond_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

SOON = 0.05


def request(
    url: str, method: str = "POST", content: object = None, **timeout: float
) -> httpx.Request:
    extensions = {"timeout": timeout}
    return httpx.Request(method, url, content=content, extensions=extensions)  # type: ignore[arg-type]  # httpx's union, passed on


@pytest.fixture
def unanswered_port() -> Iterator[int]:
    """A port that never accepts a connection, because its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        queued = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            queued.append(sock)
        yield port
        for sock in queued:
            sock.close()


async def test_connect_timeout_raises(transport: PooledTransport, unanswered_port: int) -> None:
    url = f"http://127.0.0.1:{unanswered_port}/"
    with pytest.raises(httpx.ConnectTimeout):
        await transport.handle_async_request(request(url, connect=SOON))
    assert (in_use(transport), idle(transport)) == (0, 0)


async def test_connect_timeout_covers_the_tls_handshake(transport: PooledTransport) -> None:
    with RawServer(RawConnection.wait_closed) as peer:
        url = peer.url.replace("http://", "https://")
        with pytest.raises(httpx.ConnectTimeout):
            await transport.handle_async_request(request(url, connect=SOON))
        assert (in_use(transport), idle(transport)) == (0, 0)


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_read_timeout_covers_the_response_head(
    transport: PooledTransport, begun: bytes
) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(begun)
        connection.wait_closed()

    with RawServer(script) as peer:
        with pytest.raises(httpx.ReadTimeout):
            await transport.handle_async_request(request(peer.url, read=SOON))
        assert (in_use(transport), idle(transport)) == (0, 0)
        peer.wait_ended()


async def test_timed_out_connection_is_not_retried(transport: PooledTransport) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(OK)
        connection.request()
        connection.wait_closed()

    with RawServer(script) as peer:
        await transport.handle_async_request(request(peer.url, "GET"))
        with pytest.raises(httpx.ReadTimeout):
            await transport.handle_async_request(request(peer.url, "GET", read=SOON))
        assert len(peer.connections) == 1


async def test_read_timeout_applies_between_chunks(transport: PooledTransport) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        connection.wait_closed()

    with RawServer(script) as peer:
        response = await transport.handle_async_request(request(peer.url, read=SOON))
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"hello"
        with pytest.raises(httpx.ReadTimeout):
            await anext(chunks)
        assert (in_use(transport), idle(transport)) == (0, 0)


async def _repeat(part: bytes) -> AsyncGenerator[bytes, None]:
    while True:
        yield part


@pytest.mark.parametrize("streamed", [True, False])
async def test_write_timeout_raises(transport: PooledTransport, streamed: bool) -> None:
    with RawServer(RawConnection.wait_closed, receive_buffer=65536) as peer:
        # Read nothing before the client has timed out.
        peer.pause()
        async with aclosing(_repeat(b"x" * 65536)) as endless:
            content = endless if streamed else b"x" * 50_000_000
            with pytest.raises(httpx.WriteTimeout):
                await transport.handle_async_request(request(peer.url, content=content, write=SOON))
        peer.resume()
        assert (in_use(transport), idle(transport)) == (0, 0)


async def test_request_body_has_no_timeout(transport: PooledTransport) -> None:
    """The time to produce the body does not count, even after a blocked write."""

    async def body() -> AsyncGenerator[bytes, None]:
        yield b"x" * 20_000_000
        await anyio.sleep(0.5)
        yield b"y"

    with RawServer(respond_with(OK)) as peer:
        response = await transport.handle_async_request(
            request(peer.url, content=body(), write=0.4)
        )
        assert response.status_code == 200
        assert peer.connections[0].requests[0].endswith(b"xy")


async def test_pool_timeout_is_optional() -> None:
    transport = PooledTransport(max_connections=1)
    with RawServer(RawConnection.wait_closed) as peer:
        async with transport, anyio.create_task_group() as group:
            group.start_soon(transport.handle_async_request, request(peer.url))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(httpx.PoolTimeout):
                await transport.handle_async_request(request(peer.url, pool=SOON))
            assert (in_use(transport), waiting(transport)) == (1, 0)
            with anyio.move_on_after(SOON) as scope:
                await transport.handle_async_request(request(peer.url, read=SOON / 10))
            assert scope.cancelled_caught
            assert (in_use(transport), waiting(transport)) == (1, 0)
            group.cancel_scope.cancel()
