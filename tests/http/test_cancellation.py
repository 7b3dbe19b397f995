"""Cancellation at every wait of a request."""

from __future__ import annotations

import gc
import ssl
import threading
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from fal_async._http.httpx_transport import PooledTransport
from tests.support.cancel_points import cancel_everywhere
from tests.support.pool_state import idle, in_use, waiting
from tests.support.raw_server import OK, RawConnection, RawServer, respond_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    import trustme

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def sockets() -> int:
    """Return the number of open sockets of the process."""
    gc.collect()
    links = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return sum(str(entry.readlink()).startswith("socket:") for entry in links)


async def ask(transport: PooledTransport, url: str, **options: object) -> bytes:
    request = httpx.Request("POST", url, **options)  # type: ignore[arg-type]  # of httpx, passed on
    response = await transport.handle_async_request(request)
    try:
        return b"".join([chunk async for chunk in response.aiter_raw()])
    finally:
        await response.aclose()


async def until(holds: Callable[[], bool]) -> None:
    """Run other tasks until a condition holds."""
    while not holds():
        await anyio.lowlevel.checkpoint()


async def check(transport: PooledTransport, call: Callable[[], Coroutine[Any, Any, object]]) -> int:
    """Cancel the call at every wait, and return the number of cancellations."""
    cancelled = 0
    async for number in cancel_everywhere(call):
        cancelled = number
        assert (in_use(transport), waiting(transport)) == (0, 0)
        idle(transport)
    await call()
    return cancelled


async def test_cancelled_request_on_new_connection(transport: PooledTransport) -> None:
    with RawServer(respond_with(OK)) as peer:

        async def call() -> None:
            assert await ask(transport, peer.url, headers={"Connection": "close"}) == b"ok"

        before = sockets()
        assert await check(transport, call) >= 2
        peer.wait_ended(len(peer.connections))
        assert sockets() == before


async def test_cancelled_request_to_many_addresses(transport: PooledTransport) -> None:
    with RawServer(respond_with(OK)) as peer:
        url = f"http://localhost:{peer.port}/"

        async def call() -> None:
            assert await ask(transport, url, headers={"Connection": "close"}) == b"ok"

        assert await check(transport, call) >= 3


async def test_cancelled_request_on_idle_connection(transport: PooledTransport) -> None:
    with RawServer(respond_with(OK)) as peer:

        async def call() -> None:
            assert await ask(transport, peer.url) == b"ok"

        await call()
        assert await check(transport, call) >= 1
        assert idle(transport) == 1


async def test_cancelled_request_over_tls(authority: trustme.CA) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    with RawServer(respond_with(OK), tls=server) as peer:
        async with PooledTransport(ssl_context=client) as transport:

            async def call() -> None:
                assert await ask(transport, peer.url, headers={"Connection": "close"}) == b"ok"

            assert await check(transport, call) >= 3


async def test_cancelled_read_of_chunked_response(transport: PooledTransport) -> None:
    """The server sends each chunk after the previous one has been read."""
    wanted: list[threading.Semaphore] = []

    def script(connection: RawConnection) -> None:
        request = connection.request()
        if not request:
            return
        number = int(request.split(b" ")[1][1:])
        connection.send(CHUNKED)
        for _ in range(5):
            assert wanted[number].acquire(timeout=10)
            connection.send(b"2\r\nok\r\n")
        connection.send(b"0\r\n\r\n")

    with RawServer(script) as peer:

        async def call() -> None:
            more = threading.Semaphore(0)
            wanted.append(more)
            url = f"{peer.url}{len(wanted) - 1}"
            request = httpx.Request("GET", url, headers={"Connection": "close"})
            try:
                response = await transport.handle_async_request(request)
                more.release()
                async with aclosing(response):
                    async for _ in response.aiter_raw():
                        more.release()
            finally:
                more.release(5)

        assert await check(transport, call) >= 5


@pytest.mark.parametrize("streamed", [True, False])
async def test_cancelled_write_to_slow_server(transport: PooledTransport, streamed: bool) -> None:
    """Sending blocks until all buffers on the way are full and the peer begins to read."""
    gate = threading.Event()

    def script(connection: RawConnection) -> None:
        assert gate.wait(10)
        connection.respond(OK)

    async def parts() -> AsyncGenerator[bytes, None]:
        for _ in range(5):
            yield b"x" * 1_000_000

    with RawServer(script, receive_buffer=65536) as peer:

        async def call() -> None:
            gate.clear()
            async with anyio.create_task_group() as group, aclosing(parts()) as stream:
                try:
                    content = stream if streamed else b"x" * 5_000_000
                    group.start_soon(_when_blocked, gate.set)
                    headers = {"Connection": "close"}
                    assert await ask(transport, peer.url, content=content, headers=headers) == b"ok"
                finally:
                    gate.set()

        assert await check(transport, call) >= 3


async def _when_blocked(action: Callable[[], None]) -> None:
    await anyio.wait_all_tasks_blocked()
    action()


async def test_cancelled_wait_for_a_connection() -> None:
    """Cancel the waiter while it waits, and at the moment of the handover."""
    released = threading.Event()

    def script(connection: RawConnection) -> None:
        while connection.request():
            assert released.wait(10)
            connection.send(OK)

    with RawServer(script) as peer:
        async with PooledTransport(max_connections=1) as transport:

            async def call() -> None:
                assert await ask(transport, peer.url) == b"ok"

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await until(lambda: in_use(transport) == 1)
                scopes = [anyio.CancelScope() for _ in range(10)]

                async def wait(scope: anyio.CancelScope) -> None:
                    with scope:
                        await call()

                for scope in scopes:
                    group.start_soon(wait, scope)
                await until(lambda: waiting(transport) == len(scopes))
                for scope in scopes[::2]:
                    scope.cancel()
                await until(lambda: waiting(transport) == len(scopes) // 2)
                released.set()
            assert (in_use(transport), waiting(transport), idle(transport)) == (0, 0, 1)
            assert len(peer.connections) == 1


@pytest.mark.parametrize("read", [True, False], ids=["with-connection", "without"])
async def test_cancelled_waiter_frees_its_connection(read: bool) -> None:
    go_on = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.respond(OK[:-1])
        assert go_on.wait(10)
        connection.send(OK[-1:])
        respond_with(OK)(connection)

    with RawServer(script) as peer:
        transport = PooledTransport(max_connections=1)
        doomed = anyio.CancelScope()
        responses: list[bytes] = []

        async def call(scope: anyio.CancelScope) -> None:
            with scope:
                responses.append(await ask(transport, peer.url))

        async with transport, anyio.create_task_group() as group:
            response = await transport.handle_async_request(httpx.Request("GET", peer.url))
            for waiters, scope in enumerate([doomed, anyio.CancelScope()], 1):
                group.start_soon(call, scope)
                await until(lambda waiters=waiters: waiting(transport) == waiters)  # type: ignore[misc]  # the default binds it
            go_on.set()
            # Neither yields to other tasks after the handover.
            await (response.aread() if read else response.aclose())
            assert waiting(transport) == 1
            doomed.cancel()
        assert responses == [b"ok"]
        assert len(peer.connections) == (1 if read else 2)


async def test_reader_is_notified_of_a_concurrent_close(
    transport: PooledTransport,
) -> None:
    def script(connection: RawConnection) -> None:
        connection.respond(CHUNKED)
        connection.wait_closed()

    with RawServer(script) as peer:
        response = await transport.handle_async_request(httpx.Request("GET", peer.url))
        async with anyio.create_task_group() as group:

            async def read() -> None:
                with pytest.raises(httpx.ReadError):
                    await response.aread()

            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await response.aclose()
        assert (in_use(transport), idle(transport)) == (0, 0)


async def test_cancelled_caller_sends_nothing(
    transport: PooledTransport,
) -> None:
    with RawServer(respond_with(OK)) as peer:
        await ask(transport, peer.url)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ask(transport, peer.url)
        await transport.aclose()
        peer.wait_ended()
        assert len(peer.connections[0].requests) == 1
