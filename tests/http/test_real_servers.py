"""The transport and `httpx.AsyncClient` against real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from fal_async._http.httpx_transport import PooledTransport
from tests.support.asgi_app import TEXT
from tests.support.pool_state import idle, in_use

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def client(transport: PooledTransport) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=transport, timeout=10) as client:
        yield client


async def parts() -> AsyncIterator[bytes]:
    for number in range(100):
        yield b"%d," % number


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_is_sent(
    client: httpx.AsyncClient, server_url: str, method: str
) -> None:
    response = await client.request(method, f"{server_url}/echo", content=b"hello")
    assert (response.status_code, response.headers["x-method"]) == (200, method)
    assert response.content == b"hello"
    assert (response.http_version, response.reason_phrase) in {("HTTP/1.1", "OK"), ("HTTP/1.1", "")}


@pytest.mark.parametrize("path", ["echo", "chunks", "no-content", "not-modified", "gzip"])
async def test_head_response_has_no_body(
    client: httpx.AsyncClient, transport: PooledTransport, server_url: str, path: str
) -> None:
    for _ in range(3):
        response = await client.head(f"{server_url}/{path}")
        assert response.content == b""
    assert in_use(transport) == 0


@pytest.mark.parametrize(("path", "status"), [("no-content", 204), ("not-modified", 304)])
async def test_some_statuses_have_no_body(
    client: httpx.AsyncClient, transport: PooledTransport, server_url: str, path: str, status: int
) -> None:
    for _ in range(3):
        response = await client.get(f"{server_url}/{path}")
        assert (response.status_code, response.content) == (status, b"")
    assert (in_use(transport), idle(transport)) == (0, 1)


async def test_chunked_response_is_reassembled(client: httpx.AsyncClient, server_url: str) -> None:
    response = await client.get(f"{server_url}/chunks")
    assert response.text == "".join(f"{number}," for number in range(100))


async def test_streamed_request_is_reassembled(client: httpx.AsyncClient, server_url: str) -> None:
    response = await client.post(f"{server_url}/echo", content=parts())
    assert response.text == "".join(f"{number}," for number in range(100))


async def test_streamed_request_may_announce_its_length(
    client: httpx.AsyncClient, server_url: str
) -> None:
    headers = {"Content-Length": "290"}
    response = await client.post(f"{server_url}/echo", content=parts(), headers=headers)
    assert len(response.content) == 290


@pytest.mark.parametrize("path", ["gzip", "deflate"])
async def test_compressed_responses_are_decoded(
    client: httpx.AsyncClient, server_url: str, path: str
) -> None:
    assert (await client.get(f"{server_url}/{path}")).content == TEXT


async def test_large_bodies_work_in_both_directions(
    client: httpx.AsyncClient, server_url: str
) -> None:
    content = bytes(range(256)) * 16384
    assert (await client.post(f"{server_url}/echo", content=content)).content == content


async def test_response_can_be_streamed(
    client: httpx.AsyncClient, transport: PooledTransport, server_url: str
) -> None:
    async with client.stream("GET", f"{server_url}/big") as response:
        assert in_use(transport) == 1
        size = 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
        assert (in_use(transport), idle(transport)) == (0, 1)
    assert size == 64 * 65536


async def test_unread_response_closes_its_connection(
    client: httpx.AsyncClient, transport: PooledTransport, server_url: str
) -> None:
    async with client.stream("GET", f"{server_url}/big"):
        assert in_use(transport) == 1
    assert (in_use(transport), idle(transport)) == (0, 0)
    assert (await client.get(f"{server_url}/chunks")).status_code == 200


async def test_small_response_releases_its_connection(
    client: httpx.AsyncClient, transport: PooledTransport, uvicorn_url: str
) -> None:
    async with client.stream("POST", f"{uvicorn_url}/echo", content=b"hello") as response:
        await response.aread()
        assert (in_use(transport), idle(transport)) == (0, 1)


async def test_httpx_redirects_and_cookies_work(client: httpx.AsyncClient, server_url: str) -> None:
    response = await client.post(f"{server_url}/redirect", data={"a": "b"}, follow_redirects=True)
    assert (response.text, len(response.history)) == ("a=b", 1)
    files = {"file": ("name.txt", b"hello", "text/plain")}
    assert b"hello" in (await client.post(f"{server_url}/echo", files=files)).content


async def test_early_refusal_is_received(
    client: httpx.AsyncClient, transport: PooledTransport, server_url: str
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            yield b"x" * 65536
            sent += 1

    response = await client.post(f"{server_url}/refuse", content=endless())
    assert (response.status_code, response.content) == (413, b"too big")
    assert (in_use(transport), idle(transport)) == (0, 0)


@pytest.mark.slow
async def test_many_requests_share_the_connections(server_url: str) -> None:
    transport = PooledTransport(max_connections=5)
    responses: set[str] = set()
    async with httpx.AsyncClient(transport=transport, timeout=30) as client:

        async def ask(number: int) -> None:
            response = await client.post(f"{server_url}/echo", content=b"%d" % number)
            responses.add(response.text)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(ask, number)
        assert responses == {str(number) for number in range(200)}
        assert in_use(transport) == 0
        assert 1 <= idle(transport) <= 5
