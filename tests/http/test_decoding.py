"""Compressed responses: decoding, truncation and memory limits."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import anyio
import httpx
import orjson
import pytest

from fal_async import (
    AsyncClient,
    Hosts,
    InvalidResponseError,
    PooledTransport,
    RetryPolicy,
    ServerError,
    SubmitOutcomeUnknownError,
    TransportError,
)
from fal_async._http import response as response_module
from fal_async._protocol import inference
from tests.support.raw_server import RawServer, respond_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OUTPUT = {"image": "x" * 5000, "seed": 1}
JSON = orjson.dumps(OUTPUT)


class Reading(httpx.AsyncHTTPTransport):
    """A transport that reads responses, as those do that log or cache them."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        await response.aread()
        return response


class Derived(PooledTransport):
    """A custom transport. (Those of httpx abandon generators on trio.)"""


TRANSPORTS: dict[str, Callable[[], httpx.AsyncBaseTransport | None]] = {
    "own": lambda: None,
    "pooled": PooledTransport,
    "derived": Derived,
}


def response(
    body: bytes, encoding: str, status: int = 200, media: str = "application/json"
) -> bytes:
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: {media}\r\nContent-Encoding: {encoding}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def client_of(peer: RawServer, transport: httpx.AsyncBaseTransport | None = None) -> AsyncClient:
    hosts = Hosts.at(peer.url.rstrip("/"))
    return AsyncClient("id:key", hosts=hosts, transport=transport, retry=RetryPolicy(attempts=1))


async def read_stream(client: AsyncClient) -> None:
    async with client.stream("acme/app", {}) as events:
        async for _ in events:
            pass


@pytest.mark.parametrize("make", TRANSPORTS.values(), ids=TRANSPORTS)
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(JSON, mtime=0)),
        ("gzip", gzip.compress(JSON[:100], mtime=0) + gzip.compress(JSON[100:], mtime=0)),
        ("deflate", zlib.compress(JSON)),
        ("deflate, gzip", gzip.compress(zlib.compress(JSON), mtime=0)),
        ("identity", JSON),
        ("aws-chunked", JSON),
    ],
)
async def test_compressed_output_is_decoded(
    make: Callable[[], httpx.AsyncBaseTransport | None], encoding: str, body: bytes
) -> None:
    with RawServer(respond_with(response(body, encoding))) as peer:
        async with client_of(peer, make()) as client:
            for _ in range(2):
                assert await client.run("acme/app", {}) == OUTPUT


async def test_decoded_body_is_not_decoded_again() -> None:
    with RawServer(respond_with(response(gzip.compress(JSON, mtime=0), "gzip"))) as peer:
        async with client_of(peer, Reading()) as client:
            assert await client.run("acme/app", {}) == OUTPUT


@pytest.mark.parametrize("make", TRANSPORTS.values(), ids=TRANSPORTS)
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(JSON, mtime=0)[:-9]),
        ("gzip", gzip.compress(JSON, mtime=0) + gzip.compress(JSON, mtime=0)[:20]),
        ("gzip", gzip.compress(JSON, mtime=0) + b"garbage"),
        ("deflate", zlib.compress(JSON)[:-5]),
        ("gzip, gzip", gzip.compress(gzip.compress(JSON, mtime=0)[:-1], mtime=0)),
        ("br", JSON),
    ],
)
async def test_truncated_compressed_body_is_an_error(
    tmp_path: Path,
    make: Callable[[], httpx.AsyncBaseTransport | None],
    encoding: str,
    body: bytes,
) -> None:
    with RawServer(respond_with(response(body, encoding))) as peer:
        async with client_of(peer, make()) as client:
            with pytest.raises(SubmitOutcomeUnknownError, match=r"compressed response|'br'"):
                await client.run("acme/app", {})
            with pytest.raises((TransportError, InvalidResponseError)):
                await client.download(f"{peer.url}file.bin", tmp_path / "file.bin")
            with pytest.raises(TransportError):
                await read_stream(client)
    assert not await anyio.Path(tmp_path, "file.bin").exists()


@pytest.mark.parametrize("make", TRANSPORTS.values(), ids=TRANSPORTS)
@pytest.mark.parametrize("encoding", ["identity", "gzip", "gzip, gzip"])
async def test_output_over_the_limit_is_named(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], httpx.AsyncBaseTransport | None],
    encoding: str,
) -> None:
    body = bytes(1_000_000)
    for _ in range(encoding.count("gzip")):
        body = gzip.compress(body)
    monkeypatch.setattr(inference, "MAX_OUTPUT", 300_000)
    with RawServer(lambda connection: connection.respond(response(body, encoding))) as peer:
        async with client_of(peer, make()) as client:
            with pytest.raises(InvalidResponseError, match="at most 300000 bytes"):
                await client.run("acme/app", {})


@pytest.mark.parametrize("make", TRANSPORTS.values(), ids=TRANSPORTS)
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"out of memory " * 100_000, mtime=0)),
        ("gzip", gzip.compress(b"out of memory " * 1000, mtime=0)[:-20]),
        ("identity", b"out of memory " * 100_000),
        ("br", b"\0\1\2"),
    ],
)
async def test_error_status_survives_an_unreadable_body(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], httpx.AsyncBaseTransport | None],
    encoding: str,
    body: bytes,
) -> None:
    monkeypatch.setattr(response_module, "MAX_ERROR_BODY", 100_000)
    failed = response(body, encoding, 500, "text/plain")
    with RawServer(lambda connection: connection.respond(failed)) as peer:
        async with client_of(peer, make()) as client:
            with pytest.raises(ServerError) as caught:
                await client.run("acme/app", {})
    assert len(caught.value.body) <= 100_000
    assert "out of memory" in str(caught.value) or encoding == "br"
