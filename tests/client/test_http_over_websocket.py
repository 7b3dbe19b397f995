"""HTTP over WebSocket: responses, streams, pipelining and errors."""

from __future__ import annotations

import gzip
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest
from websockets.frames import Opcode

from fal_async._client import http_over_websocket
from fal_async._client.http_over_websocket import HTTPOverWebSocket, WebSocketResponse
from fal_async._client.result import Result
from fal_async._websocket.handshake import connect_websocket
from fal_async.errors import (
    InvalidInputError,
    InvalidRequestError,
    InvalidResponseError,
    RealtimeDisconnectedError,
    ServerError,
    StreamError,
)
from tests.support.raw_server import PATIENCE, RawServer
from tests.support.websocket_server import (
    ScriptedWebSocket,
    binary,
    close,
    closing,
    text,
    websocket_script,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

JSON = {"Content-Type": "application/json"}
SSE = {"Content-Type": "text/event-stream; charset=utf-8"}
PNG = {"Content-Type": "image/png"}


@asynccontextmanager
async def requests_to(
    script: Callable[[ScriptedWebSocket], None],
) -> AsyncGenerator[HTTPOverWebSocket]:
    with RawServer(websocket_script(script)) as peer:
        requests = HTTPOverWebSocket(await connect_websocket(f"ws://127.0.0.1:{peer.port}/"))
        async with closing(requests):
            yield requests


def start(request_id: str, status: int = 200, headers: dict[str, str] = JSON) -> bytes:
    meta = {"type": "start", "request_id": request_id, "status": status, "headers": headers}
    return text(orjson.dumps(meta).decode())


def end(request_id: str) -> bytes:
    return text(orjson.dumps({"type": "end", "request_id": request_id, "status": 200}).decode())


def read_request(server: ScriptedWebSocket) -> Any:
    frame = server.read()
    assert frame.opcode is Opcode.TEXT
    return orjson.loads(bytes(frame.data))


def respond_with(*parts: bytes) -> Callable[[ScriptedWebSocket], None]:
    """Make a script that responds to one request."""

    def script(server: ScriptedWebSocket) -> None:
        read_request(server)
        server.send(*parts)
        server.confirm_close()

    return script


async def test_response_has_status_headers_and_result() -> None:
    def script(server: ScriptedWebSocket) -> None:
        assert read_request(server) == {"prompt": "a cat"}
        headers = {**JSON, "X-Fal-Billable-Units": "2"}
        server.send(start("1", 200, headers), text('{"seed"'), binary(b": 5}"), end("1"))
        server.confirm_close()

    async with requests_to(script) as requests:
        response = await requests.request({"prompt": "a cat"})
    assert (response.status_code, response.request_id) == (200, "1")
    assert response.headers["content-type"] == "application/json"
    assert response.result == {"seed": 5}
    assert isinstance(response.result, Result)
    assert (response.result.request_id, response.result.billable_units) == ("1", 2)
    assert repr(response) == "WebSocketResponse(200, request_id='1')"
    assert [chunk async for chunk in response] == []


async def test_connection_survives_error_responses() -> None:
    def script(server: ScriptedWebSocket) -> None:
        read_request(server)
        detail = {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
        body = orjson.dumps({"detail": [detail]}).decode()
        server.send(start("1", 422), text(body), end("1"))
        read_request(server)
        server.send(start("2", 500, PNG), text("boom"), end("2"))
        read_request(server)
        server.send(start("3", 200, {}), text("[3]"), end("3"))
        server.confirm_close()

    async with requests_to(script) as requests:
        with pytest.raises(InvalidInputError, match="Field required") as caught:
            await requests.request({})
        assert (caught.value.request_id, caught.value.details[0].type) == ("1", "missing")
        with pytest.raises(ServerError, match="boom"):
            await requests.request({})
        assert (await requests.request({})).result == [3]


async def test_events_are_decoded() -> None:
    script = respond_with(
        start("1", 200, SSE),
        text('data: {"n": 1}\n\n: comment\n\ndata: {"n"'),
        text(": 2}\n\ndata: text\n\ndata: [DONE]\n\n"),
        end("1"),
    )
    async with requests_to(script) as requests, await requests.request({}) as response:
        assert response.result is None
        assert [event async for event in response] == [{"n": 1}, {"n": 2}, "text"]
        assert [event async for event in response] == []


async def test_second_reader_is_rejected() -> None:
    def script(server: ScriptedWebSocket) -> None:
        read_request(server)
        server.send(start("1", 200, SSE))
        assert refused.wait(PATIENCE)
        server.send(text("data: 1\n\n"), end("1"))
        server.confirm_close()

    async def read() -> None:
        seen.extend([event async for event in response])

    refused = threading.Event()
    seen: list[Any] = []
    async with requests_to(script) as requests:
        response = await requests.request({})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(InvalidRequestError, match="another task"):
                await anext(response)
            refused.set()
    assert seen == [1]


async def test_stream_error_is_raised_after_events() -> None:
    script = respond_with(
        start("1", 200, SSE),
        text('data: 1\n\nevent: error\ndata: {"message": "boom"}\n\n'),
        end("1"),
    )
    async with requests_to(script) as requests:
        response = await requests.request({})
        assert await anext(response) == 1
        with pytest.raises(StreamError, match="boom"):
            await anext(response)


async def test_other_content_is_yielded_in_chunks() -> None:
    script = respond_with(
        start("1", 200, PNG), binary(b"\x89PNG"), binary(b""), text("é"), end("1")
    )
    async with requests_to(script) as requests:
        response = await requests.request({})
        assert [chunk async for chunk in response] == [b"\x89PNG", b"", "é".encode()]


async def test_pipelined_responses_arrive_in_order() -> None:
    def script(server: ScriptedWebSocket) -> None:
        numbers = [read_request(server)["n"] for _ in range(10)]
        for number in numbers:
            request_id = f"id-{number}"
            server.send(start(request_id), text(f'{{"n": {number}}}'), end(request_id))
        server.confirm_close()

    results: dict[int, WebSocketResponse] = {}

    async def send_request(requests: HTTPOverWebSocket, number: int) -> None:
        results[number] = await requests.request({"n": number})

    async with requests_to(script) as requests, anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(send_request, requests, number)
    assert {number: response.result["n"] for number, response in results.items()} == {
        number: number for number in range(10)
    }
    assert all(response.request_id == f"id-{number}" for number, response in results.items())


@pytest.mark.parametrize("in_block", [True, False])
async def test_closed_stream_unblocks_next_response(in_block: bool) -> None:
    def script(server: ScriptedWebSocket) -> None:
        read_request(server)
        server.send(start("1", 200, SSE), text("data: 1\n\ndata: not read\n\n"))
        read_request(server)
        server.send(text("data: 2\n\n") * 3, end("1"), start("2"), text("2"), end("2"))
        server.confirm_close()

    async with requests_to(script) as requests:
        response = await requests.request({})
        if in_block:
            async with response:
                assert await anext(response) == 1
        else:
            assert await anext(response) == 1
            await response.aclose()
        assert [event async for event in response] == []
        assert (await requests.request({})).result == 2


async def test_cancelled_request_unblocks_next_response() -> None:
    def script(server: ScriptedWebSocket) -> None:
        assert read_request(server) == {"n": 1}
        assert read_request(server) == {"n": 2}
        server.send(start("1"), text("1"), end("1"), start("2"), text("2"), end("2"))
        server.confirm_close()

    async with requests_to(script) as requests:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(requests.request, {"n": 1})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert (await requests.request({"n": 2})).result == 2


async def test_discarded_response_unblocks_all_readers() -> None:
    go = threading.Event()

    def script(server: ScriptedWebSocket) -> None:
        for _ in range(4):
            read_request(server)
        assert go.wait(PATIENCE)
        for name in ("1", "2", "3", "4"):
            server.send(start(name), text(name), end(name))
        server.confirm_close()

    results: list[object] = []

    async def send_request(requests: HTTPOverWebSocket, number: int) -> None:
        response = await requests.request({"n": number})
        results.append((number, response.result))

    async with requests_to(script) as requests:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(requests.request, {"n": 1})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            for number in (2, 3, 4):
                tasks.start_soon(send_request, requests, number)
                await anyio.wait_all_tasks_blocked()
            go.set()
    assert results == [(2, 2), (3, 3), (4, 4)]


async def test_waiting_reader_may_be_cancelled() -> None:
    def script(server: ScriptedWebSocket) -> None:
        read_request(server)
        server.send(start("1", 200, SSE), text("data: 1\n\n"))
        read_request(server)
        read_request(server)
        parts = [start(name) + text(name) + end(name) for name in ("2", "3")]
        server.send(end("1"), *parts)
        server.confirm_close()

    async with requests_to(script) as requests:
        stream = await requests.request({})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(requests.request, {"n": 2})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        third: list[WebSocketResponse] = []

        async def send_request() -> None:
            third.append(await requests.request({"n": 3}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_request)
            await anyio.wait_all_tasks_blocked()
            assert [event async for event in stream] == [1]
        assert third[0].result == 3


@pytest.mark.parametrize("ending", [b"", close(1011, "crash")])
async def test_lost_connection_raises_in_all_readers(ending: bytes) -> None:
    def script(server: ScriptedWebSocket) -> None:
        for _ in range(3):
            read_request(server)
        server.send(start("1"), ending)

    errors: list[RealtimeDisconnectedError] = []

    async def send_request(requests: HTTPOverWebSocket) -> None:
        try:
            await requests.request({})
        except RealtimeDisconnectedError as error:
            errors.append(error)

    async with requests_to(script) as requests:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(send_request, requests)
        with pytest.raises(RealtimeDisconnectedError):
            await requests.request({})
    assert [error.close_code for error in errors] == [1011 if ending else 1006] * 3


async def test_undecodable_response_ends_connection() -> None:
    async with requests_to(respond_with(text("invalid"))) as requests:
        with pytest.raises(InvalidResponseError, match="did not begin with its start"):
            await requests.request({})
        with pytest.raises(RealtimeDisconnectedError):
            await requests.request({})


async def test_invalid_json_is_invalid_response() -> None:
    async with requests_to(respond_with(start("1"), text("{"), end("1"))) as requests:
        with pytest.raises(InvalidResponseError):
            await requests.request({})


async def test_truncated_compressed_response_raises() -> None:
    body, events = gzip.compress(b'{"n": 1}'), gzip.compress(b"data: 1\n\n" * 3)

    def script(server: ScriptedWebSocket) -> None:
        parts = [
            (JSON, [body[:9], body[9:]]),
            (JSON, [body[:-1]]),
            (SSE, [events[:9], events[9:]]),
            (SSE, [events[:-1]]),
            (JSON, [body]),
        ]
        for number, (headers, chunks) in enumerate(parts):
            read_request(server)
            compressed = {**headers, "Content-Encoding": "gzip"}
            name = str(number)
            server.send(start(name, 200, compressed), *map(binary, chunks), end(name))
        server.confirm_close()

    async with requests_to(script) as requests:
        assert (await requests.request({})).result == {"n": 1}
        with pytest.raises(InvalidResponseError, match="truncated"):
            await requests.request({})
        assert [event async for event in await requests.request({})] == [1, 1, 1]
        async with await requests.request({}) as broken:
            with pytest.raises(InvalidResponseError, match="truncated"):
                assert [event async for event in broken] == []
        assert (await requests.request({})).result == {"n": 1}


async def test_connection_survives_too_long_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_over_websocket, "MAX_OUTPUT", 1000)

    def script(server: ScriptedWebSocket) -> None:
        read_request(server)
        server.send(start("1"), *[binary(b" " * 100)] * 100, end("1"))
        read_request(server)
        server.send(start("2"), binary(b" " * 998), binary(b"{}"), end("2"))
        server.confirm_close()

    async with requests_to(script) as requests:
        with pytest.raises(InvalidResponseError, match="at most 1000 bytes"):
            await requests.request({})
        assert (await requests.request({})).result == {}


async def test_connection_survives_invalid_arguments() -> None:
    async with requests_to(respond_with(start("1"), text("1"), end("1"))) as requests:
        with pytest.raises(InvalidRequestError):
            await requests.request([1])  # type: ignore[arg-type]  # invalid on purpose
        assert (await requests.request({})).result == 1
