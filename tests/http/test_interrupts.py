"""Reads of a body that another task interrupts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from fal_async._http.httpx_backend import HTTPXBackend
from fal_async._http.pool import HTTPConnectionPool
from fal_async._http.response import ExchangeFailed
from fal_async._http.transmission import Transmission
from fal_async._http.transports import PooledBackend
from tests.support.raw_server import RawConnection, RawServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fal_async._http.response import StreamedResponse, Transport


@pytest.fixture(params=["pool", "httpx"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    uses_pool = request.param == "pool"
    pooled = PooledBackend(HTTPConnectionPool())
    used = pooled if uses_pool else HTTPXBackend(httpx.AsyncHTTPTransport())
    yield used
    await used.aclose()


async def respond(transport: Transport, peer: RawServer) -> StreamedResponse:
    """Get a response of which one byte has arrived."""
    return await transport.send("GET", peer.url, {}, b"", {}, Transmission(repeatable=True))


def script(connection: RawConnection) -> None:
    connection.respond(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1")
    connection.wait_closed()


async def test_read_under_way_is_interrupted(transport: Transport) -> None:
    with RawServer(script) as peer:
        response = await respond(transport, peer)
        assert await response.next_chunk() == b"1"
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:

                async def read() -> None:
                    with pytest.raises(ExchangeFailed):
                        await response.next_chunk()

                group.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                response.interrupt()
        await response.aclose()


@pytest.mark.parametrize("transport", ["pool"], indirect=True)  # httpx drops open generators
async def test_next_read_is_interrupted(transport: Transport) -> None:
    with RawServer(script) as peer:
        response = await respond(transport, peer)
        assert await response.next_chunk() == b"1"
        response.interrupt()
        with pytest.raises(ExchangeFailed):
            await response.next_chunk()
        await response.aclose()
        response.interrupt()  # nothing is left to be interrupted
