"""Time slices: readers yield to other tasks while data arrives."""

from __future__ import annotations

import gzip
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import orjson
import pytest
from websockets.frames import Opcode

from fal_async import AsyncClient, AsyncRequestHandle, Hosts, Limits
from fal_async._client.http_over_websocket import HTTPOverWebSocket
from fal_async._http.response import decode_headers
from fal_async._net import threads, time_slice
from fal_async._net.time_slice import SLICE, SlicedDecoder
from fal_async._websocket.handshake import connect_websocket
from tests.support.raw_server import RawConnection, RawServer
from tests.support.websocket_server import (
    ScriptedWebSocket,
    binary,
    continuation,
    frame,
    text,
    websocket_script,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fal_async._websocket.connection import WebSocket

#: How many frames, lines or chunks come in a row.
MANY = 3_000


class Turns:
    """Counts how often another task has run."""

    count = 0

    async def run(self) -> None:
        while True:
            self.count += 1
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def turns() -> AsyncGenerator[Turns]:
    """A task that runs as often as the reader lets it."""
    other = Turns()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other.run)
        yield other
        tasks.cancel_scope.cancel()


@pytest.fixture
def _no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slice of time is over at once, so each step must end with other tasks' turn."""
    monkeypatch.setattr(time_slice, "TIME_SLICE", 0.0)


@asynccontextmanager
async def receiving(sent: bytes) -> AsyncGenerator[WebSocket]:
    def script(server: ScriptedWebSocket) -> None:
        server.send(sent)
        server.confirm_close()

    with RawServer(websocket_script(script)) as peer:
        websocket = await connect_websocket(f"ws://127.0.0.1:{peer.port}/")
        try:
            yield websocket
        finally:
            await websocket.close()


@pytest.mark.usefixtures("_no_time")
@pytest.mark.parametrize(
    "sent",
    [
        frame(Opcode.PING, b"") * MANY,
        frame(Opcode.PONG, b"") * MANY,
        frame(Opcode.PONG, b"x" * 125) * MANY,
        binary(b"x", fin=False) + continuation(b"y") * MANY + continuation(b"", fin=True),
        text("", fin=False) + continuation(b"") * MANY + continuation(b"", fin=True),
    ],
    ids=["empty pings", "empty pongs", "long pongs", "fragments", "empty fragments"],
)
async def test_control_frames_do_not_block_the_loop(sent: bytes) -> None:
    async with receiving(sent + text("end")) as websocket, turns() as other:
        while await websocket.recv() != "end":
            pass
    assert other.count > MANY / 2


@pytest.mark.usefixtures("_no_time")
@pytest.mark.parametrize("message", [binary(b""), text("x")])
async def test_buffered_messages_do_not_block_the_loop(message: bytes) -> None:
    async with receiving(message * MANY) as websocket, turns() as other:
        for _ in range(MANY):
            await websocket.recv()
    assert other.count > MANY / 2


async def test_pings_during_close_do_not_block_the_loop() -> None:
    def script(server: ScriptedWebSocket) -> None:
        while True:
            server.send(frame(Opcode.PING, b"") * MANY)

    with RawServer(websocket_script(script)) as peer:
        websocket = await connect_websocket(f"ws://127.0.0.1:{peer.port}/")
        with anyio.move_on_after(0.1) as scope:
            await websocket.close()
        assert scope.cancelled_caught
        assert websocket.close_code == 1006


@pytest.mark.usefixtures("_no_time")
async def test_carried_responses_do_not_block_the_loop() -> None:
    start = {"type": "start", "request_id": "1", "status": 200}
    headers = {"content-type": "application/json"}

    def script(server: ScriptedWebSocket) -> None:
        server.read()
        server.send(text(orjson.dumps({**start, "headers": headers}).decode()))
        server.send(binary(b" ") * MANY + binary(b'{"a": 1}'))
        server.send(text(orjson.dumps({**start, "type": "end"}).decode()))
        server.confirm_close()

    with RawServer(websocket_script(script)) as peer:
        websocket = await connect_websocket(f"ws://127.0.0.1:{peer.port}/")
        async with turns() as other:
            response = await HTTPOverWebSocket(websocket).request({})
        assert response.result == {"a": 1}
        await websocket.close()
    assert other.count > MANY / 2


@pytest.mark.usefixtures("_no_time")
@pytest.mark.parametrize("line", [b"\n", b":\n", b"id:\n", b"event\r\n", b"\r"])
async def test_long_event_chunks_do_not_block_the_loop(line: bytes) -> None:
    start = {"type": "start", "request_id": "1", "status": 200}
    headers = {"content-type": "text/event-stream"}
    slices = 50

    def script(server: ScriptedWebSocket) -> None:
        server.read()
        server.send(text(orjson.dumps({**start, "headers": headers}).decode()))
        server.send(binary(line * (slices * SLICE // len(line)) + b"\n\ndata: 1\n\n"))
        server.confirm_close()

    with RawServer(websocket_script(script)) as peer:
        websocket = await connect_websocket(f"ws://127.0.0.1:{peer.port}/")
        response = await HTTPOverWebSocket(websocket).request({})
        async with turns() as other:
            assert await anext(response) == 1
        await websocket.close()
    assert other.count > slices / 2


def client_of(peer: RawServer) -> AsyncClient:
    limits = Limits(max_streams=0)
    return AsyncClient("id:secret", hosts=Hosts.at(peer.url.rstrip("/")), limits=limits)


def responding(body: bytes, *headers: str) -> Callable[[RawConnection], None]:
    head = "\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode()

    def script(connection: RawConnection) -> None:
        while connection.request():
            connection.send(head, body)

    return script


@pytest.mark.usefixtures("_no_time")
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_empty_streams_do_not_block_the_loop(encoding: str) -> None:
    slices = 100
    body = b"\n" * (slices * SLICE) + b"data: {}\n\n"
    if encoding == "gzip":
        body = gzip.compress(body)
    headers = [
        "content-type: text/event-stream",
        f"content-length: {len(body)}",
        f"content-encoding: {encoding}",
    ]
    with RawServer(responding(body, *headers)) as peer:
        async with client_of(peer) as client, turns() as other, client.stream("a/b", {}) as events:
            assert [event async for event in events] == [{}]
    assert other.count > slices / 2


@pytest.mark.parametrize("size", [1, 2])
async def test_small_chunks_do_not_block_the_loop(size: int) -> None:
    body = b"%d\r\n%b\r\n" % (size, b" " * size) * (20 * SLICE // 6) + b"2\r\n{}\r\n0\r\n\r\n"
    headers = ["content-type: application/json", "transfer-encoding: chunked"]
    with RawServer(responding(body, *headers)) as peer:
        async with client_of(peer) as client, turns() as other:
            assert await client.run("acme/app", {}) == {}
    assert other.count > 20


async def test_long_logs_do_not_block_the_loop() -> None:
    lines = 100_000
    status = {"status": "COMPLETED", "logs": [{}] * lines}
    body = orjson.dumps(status)
    assert len(body) > threads.MAX_INLINE_DECODE
    headers = ["content-type: application/json", f"content-length: {len(body)}"]
    with RawServer(responding(body, *headers)) as peer:
        async with client_of(peer) as client:
            url = peer.url.rstrip("/")
            handle = client.attach(
                AsyncRequestHandle(
                    request_id="1",
                    response_url=f"{url}/queue/acme/app/requests/1",
                    status_url=f"{url}/queue/acme/app/requests/1/status",
                    cancel_url=f"{url}/queue/acme/app/requests/1/cancel",
                    application="acme/app",
                )
            )
            async with turns() as other:
                async for each in handle.iter_events(with_logs=True):
                    assert len(getattr(each, "logs", ())) == lines
    assert other.count > 20


async def test_closed_stream_decodes_no_more_bytes() -> None:
    decoder = SlicedDecoder(lambda piece: iter([piece]))
    decoder.feed(b"x" * (SLICE + 1))
    assert await decoder.advance()
    decoder.drop()
    assert not await decoder.advance()
    assert list(decoder.items) == []


def test_repeated_headers_are_joined_in_order() -> None:
    received = [(b"A", b"1"), (b"b", b"2"), (b"a", b"3"), (b"A", b"4")]
    assert decode_headers(received) == {"a": "1, 3, 4", "b": "2"}
