"""Malformed responses, early closes and resets."""

from __future__ import annotations

import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from tests.support.pool_state import idle, in_use
from tests.support.raw_server import OK, RawConnection, RawServer, respond_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from fal_async._http.httpx_transport import PooledTransport

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def ask(transport: PooledTransport, peer: RawServer, method: str = "GET") -> bytes:
    response = await transport.handle_async_request(httpx.Request(method, peer.url))
    return await response.aread()


@pytest.mark.parametrize(
    "response",
    [
        b"garbage\r\n\r\n",
        b"\x00" * 1000,
        b"HTTP/1.1 200 OK\r\n" + b"Name: value\r\n" * 100000,
        b"HTTP/1.1 200 OK\r\nName: " + b"x" * 1000000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Len",
    ],
    ids=["garbage", "zeros", "headers", "header", "interim", "upgrade", "ambiguous", "cut"],
)
async def test_invalid_http_response_is_an_error(
    transport: PooledTransport, response: bytes
) -> None:
    def script(connection: RawConnection) -> None:
        connection.request()
        try:
            connection.send(response)
        except OSError:
            return  # the client has seen enough

    with RawServer(script) as peer:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(transport, peer)
        assert (in_use(transport), idle(transport)) == (0, 0)


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
    ],
)
async def test_truncated_body_is_an_error(transport: PooledTransport, cut: bytes) -> None:
    with RawServer(lambda connection: connection.respond(cut)) as peer:
        with pytest.raises(
            httpx.RemoteProtocolError, match="closed before the response was complete"
        ):
            await ask(transport, peer)
        assert (in_use(transport), idle(transport)) == (0, 0)


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"5\r\nhelloX\r\n", b"-1\r\n"])
async def test_invalid_chunk_is_an_error_on_arrival(
    transport: PooledTransport, chunk: bytes
) -> None:
    with RawServer(lambda connection: connection.respond(CHUNKED + b"2\r\nhi\r\n" + chunk)) as peer:
        response = await transport.handle_async_request(httpx.Request("GET", peer.url))
        received = bytearray()

        async def read() -> None:
            async for piece in response.aiter_raw():
                received.extend(piece)

        with pytest.raises(httpx.RemoteProtocolError):
            await read()
        assert received[:2] == b"hi"
        await response.aclose()
        assert (in_use(transport), idle(transport)) == (0, 0)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "before", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", OK[:-1]]
)
async def test_reset_is_an_error_at_any_point(
    transport: PooledTransport, before: bytes, method: str
) -> None:
    seen = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.request()
        connection.send(before)
        if before.endswith((b"\n", b"o")):
            assert seen.wait(10)
        connection.reset()

    async def converse() -> None:
        response = await transport.handle_async_request(httpx.Request(method, peer.url))
        seen.set()
        await response.aread()

    with RawServer(script) as peer:
        with pytest.raises((httpx.ReadError, httpx.WriteError)):
            await converse()
        assert (in_use(transport), idle(transport)) == (0, 0)
        assert len(peer.connections) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_close_without_response_is_an_error(transport: PooledTransport, method: str) -> None:
    with RawServer(lambda connection: connection.respond(b"")) as peer:
        with pytest.raises(httpx.ReadError, match="closed without a response"):
            await ask(transport, peer, method)
        assert len(peer.connections) == 1


async def test_slow_response_is_reassembled(transport: PooledTransport) -> None:
    raw = (
        b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
        + CHUNKED
        + b"2\r\no;\r\n1;x=y\r\nk\r\n0\r\n\r\n"
    )

    def script(connection: RawConnection) -> None:
        while connection.request():
            connection.send(*(raw[i : i + 1] for i in range(len(raw))))

    with RawServer(script) as peer:
        assert [await ask(transport, peer) for _ in range(3)] == [b"o;k"] * 3
        assert (in_use(transport), idle(transport)) == (0, 1)


@pytest.mark.parametrize(
    "junk", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"garbage", b"H"]
)
async def test_extra_data_belongs_to_no_response(transport: PooledTransport, junk: bytes) -> None:
    """The attack known as response smuggling, in one segment with the response."""
    with RawServer(respond_with(OK + junk)) as peer:
        assert [await ask(transport, peer) for _ in range(3)] == [b"ok"] * 3
        assert len(peer.connections) == 3


@pytest.mark.parametrize(
    "more",
    [
        lambda connection: connection.send(
            b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nevil"
        ),
        lambda connection: connection.send(b"garbage"),
        lambda connection: connection.half_close(),
        lambda connection: connection.reset(),
    ],
    ids=["response-to-nobody", "garbage", "half-close", "reset"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_disturbed_idle_connection_is_not_reused(
    transport: PooledTransport, method: str, more: Callable[[RawConnection], None]
) -> None:
    happened = threading.Event()
    go_on = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.respond(OK)
        if connection.number == 1:
            assert go_on.wait(10)
            more(connection)
            happened.set()
            if connection._socket.fileno() >= 0:
                connection.wait_closed()

    with RawServer(script) as peer:
        assert await ask(transport, peer, method) == b"ok"
        go_on.set()
        await anyio.to_thread.run_sync(happened.wait)
        assert await ask(transport, peer, method) == b"ok"
        assert len(peer.connections) == 2


def _dies_after_one(connection: RawConnection) -> None:
    """Respond once, read the next request, and close without a response."""
    connection.respond(OK)
    connection.request()


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_safe_request_replaces_dead_connection(
    transport: PooledTransport, method: str
) -> None:
    response = OK if method != "HEAD" else OK[:-2]

    def script(connection: RawConnection) -> None:
        connection.respond(response)
        connection.request()

    with RawServer(script) as peer:
        for _ in range(3):
            await ask(transport, peer, method)
        assert len(peer.connections) == 3
        assert [len(connection.requests) for connection in peer.connections] == [2, 2, 1]


async def test_post_on_dead_connection_is_not_retried(transport: PooledTransport) -> None:
    with RawServer(_dies_after_one) as peer:
        assert await ask(transport, peer, "POST") == b"ok"
        with pytest.raises((httpx.ReadError, httpx.WriteError)):
            await ask(transport, peer, "POST")
        assert len(peer.connections) == 1
        assert (in_use(transport), idle(transport)) == (0, 0)


async def test_unrepeatable_body_is_not_retried(
    transport: PooledTransport,
) -> None:
    with RawServer(_dies_after_one) as peer:
        assert await ask(transport, peer) == b"ok"
        with pytest.raises((httpx.ReadError, httpx.WriteError)):
            await transport.handle_async_request(httpx.Request("PUT", peer.url, content=_one()))
        assert len(peer.connections) == 1


@pytest.mark.parametrize(
    "disconnect", [RawConnection.reset, RawConnection.close], ids=["reset", "close"]
)
async def test_partial_response_prevents_a_retry(
    transport: PooledTransport, disconnect: Callable[[RawConnection], None]
) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(OK)
        connection.respond(b"H")
        disconnect(connection)

    with RawServer(script) as peer:
        assert await ask(transport, peer) == b"ok"
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await ask(transport, peer)
        assert len(peer.connections) == 1


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"2\r\nok\r\n0\r\n\r\n",
    ],
)
async def test_connection_close_header_is_respected(
    transport: PooledTransport, response: bytes
) -> None:
    with RawServer(lambda connection: connection.respond(response)) as peer:
        for _ in range(2):
            assert await ask(transport, peer) == b"ok"
            assert (in_use(transport), idle(transport)) == (0, 0)
        assert len(peer.connections) == 2


async def test_request_may_close_its_connection(transport: PooledTransport) -> None:
    with RawServer(respond_with(OK)) as peer:
        request = httpx.Request("GET", peer.url, headers={"Connection": "close"})
        response = await transport.handle_async_request(request)
        assert await response.aread() == b"ok"
        assert (in_use(transport), idle(transport)) == (0, 0)


@pytest.mark.parametrize("streamed", [True, False])
async def test_early_response_closes_the_connection(
    transport: PooledTransport, streamed: bool
) -> None:
    """The server responds once the client cannot send more, and neither reads nor closes."""
    blocked = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.until(b"\r\n\r\n")
        assert blocked.wait(10)
        connection.send(b"HTTP/1.1 413 Too Big\r\nContent-Length: 3\r\n\r\nbig")
        assert response_received.wait(10)

    async def respond() -> None:
        await anyio.wait_all_tasks_blocked()
        blocked.set()

    response_received = threading.Event()
    with RawServer(script) as peer:
        async with aclosing(_repeat(b"x" * 65536)) as endless, anyio.create_task_group() as group:
            group.start_soon(respond)
            content = endless if streamed else b"x" * 50_000_000
            request = httpx.Request("POST", peer.url, content=content)
            response = await transport.handle_async_request(request)
        assert (response.status_code, await response.aread()) == (413, b"big")
        assert (in_use(transport), idle(transport)) == (0, 0)
        response_received.set()


async def _one() -> AsyncGenerator[bytes, None]:
    yield b"one"


async def _repeat(part: bytes) -> AsyncGenerator[bytes, None]:
    while True:
        yield part


async def test_response_is_read_after_the_peer_closed(transport: PooledTransport) -> None:
    """Writing fails with a broken pipe, and the earlier response can still be read."""

    def script(connection: RawConnection) -> None:
        connection.until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 413 Too Big\r\nContent-Length: 3\r\n\r\nbig")

    async def body() -> AsyncGenerator[bytes, None]:
        yield b"x"
        await anyio.to_thread.run_sync(peer.wait_ended)
        for _ in range(100):
            yield b"x" * 65536

    with RawServer(script) as peer:
        async with aclosing(body()) as content:
            request = httpx.Request("POST", peer.url, content=content)
            response = await transport.handle_async_request(request)
        assert (response.status_code, await response.aread()) == (413, b"big")
        assert (in_use(transport), idle(transport)) == (0, 0)


@pytest.mark.parametrize(
    "disconnect", [RawConnection.reset, RawConnection.close], ids=["reset", "close"]
)
async def test_close_during_upload_is_a_write_error(
    transport: PooledTransport, disconnect: Callable[[RawConnection], None]
) -> None:
    def script(connection: RawConnection) -> None:
        connection.until(b"\r\n\r\n")
        disconnect(connection)

    with RawServer(script) as peer:
        request = httpx.Request("POST", peer.url, content=b"x" * 50_000_000)
        with pytest.raises(httpx.WriteError):
            await transport.handle_async_request(request)
        assert (in_use(transport), idle(transport)) == (0, 0)


async def test_early_response_does_not_stop_the_upload(
    transport: PooledTransport,
) -> None:
    def script(connection: RawConnection) -> None:
        connection.until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED)
        body = connection.exactly(30_000_000)
        connection.send(b"%x\r\n%d\r\n0\r\n\r\n" % (len(str(len(body))), len(body)))
        connection.wait_closed()

    with RawServer(script) as peer:
        request = httpx.Request("POST", peer.url, content=b"x" * 30_000_000)
        response = await transport.handle_async_request(request)
        assert await response.aread() == b"30000000"
        assert (in_use(transport), idle(transport)) == (0, 1)
        await transport.aclose()


@pytest.mark.parametrize("length", [b"2", b"4"])
async def test_stream_of_wrong_length_is_an_error(
    transport: PooledTransport, length: bytes
) -> None:
    with RawServer(RawConnection.wait_closed) as peer:
        async with aclosing(_one()) as body:
            headers = {b"Content-Length": length}
            request = httpx.Request("POST", peer.url, headers=headers, content=body)
            with pytest.raises(httpx.LocalProtocolError):
                await transport.handle_async_request(request)
        assert (in_use(transport), idle(transport)) == (0, 0)


async def test_body_exception_reaches_the_caller(transport: PooledTransport) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        raise FileNotFoundError("picture.png")

    with RawServer(RawConnection.wait_closed) as peer:
        request = httpx.Request("POST", peer.url, content=body())
        with pytest.raises(FileNotFoundError):
            await transport.handle_async_request(request)
        assert (in_use(transport), idle(transport)) == (0, 0)


async def test_body_is_not_read_ahead(transport: PooledTransport) -> None:
    """The server cannot send more than the socket buffers hold until the client reads."""
    blocked = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        connection._socket.settimeout(0.5)
        try:
            connection.send(b"x" * 100_000_000)
        except TimeoutError:
            blocked.set()

    with RawServer(script) as peer:
        response = await transport.handle_async_request(httpx.Request("GET", peer.url))
        await anyio.to_thread.run_sync(peer.wait_ended)
        assert blocked.is_set()
        await response.aclose()
