"""HTTP requests over one WebSocket, against scripted peers."""

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
from tests.support.websocket_server import ScriptedWebSocket, binary, close, closing, speaking, text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

JSON = {"Content-Type": "application/json"}
SSE = {"Content-Type": "text/event-stream; charset=utf-8"}
PNG = {"Content-Type": "image/png"}


@asynccontextmanager
async def requests_to(
    script: Callable[[ScriptedWebSocket], None],
) -> AsyncGenerator[HTTPOverWebSocket]:
    with RawServer(speaking(script)) as peer, anyio.fail_after(PATIENCE):
        requests = HTTPOverWebSocket(await connect_websocket(f"ws://127.0.0.1:{peer.port}/"))
        async with closing(requests):
            yield requests


def start(request_id: str, status: int = 200, headers: dict[str, str] = JSON) -> bytes:
    meta = {"type": "start", "request_id": request_id, "status": status, "headers": headers}
    return text(orjson.dumps(meta).decode())


def end(request_id: str) -> bytes:
    return text(orjson.dumps({"type": "end", "request_id": request_id, "status": 200}).decode())


def asked(socketeer: ScriptedWebSocket) -> Any:
    frame = socketeer.read()
    assert frame.opcode is Opcode.TEXT
    return orjson.loads(bytes(frame.data))


def answering(*parts: bytes) -> Callable[[ScriptedWebSocket], None]:
    """A script that answers one request."""

    def script(socketeer: ScriptedWebSocket) -> None:
        asked(socketeer)
        socketeer.line.send(*parts)
        socketeer.agree()

    return script


async def test_a_request_gives_the_status_the_headers_and_the_decoded_result() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        assert asked(socketeer) == {"prompt": "a cat"}
        headers = {**JSON, "X-Fal-Billable-Units": "2"}
        socketeer.line.send(start("1", 200, headers), text('{"seed"'), binary(b": 5}"), end("1"))
        socketeer.agree()

    async with requests_to(script) as requests:
        response = await requests.request({"prompt": "a cat"})
    assert (response.status_code, response.request_id) == (200, "1")
    assert response.headers["content-type"] == "application/json"
    assert response.result == {"seed": 5}
    assert isinstance(response.result, Result)
    assert (response.result.request_id, response.result.billable_units) == ("1", 2)
    assert repr(response) == "WebSocketResponse(200, request_id='1')"
    assert [chunk async for chunk in response] == []


async def test_an_error_status_is_the_typed_error_and_the_next_request_goes_on() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        asked(socketeer)
        detail = {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
        body = orjson.dumps({"detail": [detail]}).decode()
        socketeer.line.send(start("1", 422), text(body), end("1"))
        asked(socketeer)
        socketeer.line.send(start("2", 500, PNG), text("boom"), end("2"))
        asked(socketeer)
        socketeer.line.send(start("3", 200, {}), text("[3]"), end("3"))
        socketeer.agree()

    async with requests_to(script) as requests:
        with pytest.raises(InvalidInputError, match="Field required") as caught:
            await requests.request({})
        assert (caught.value.request_id, caught.value.details[0].type) == ("1", "missing")
        with pytest.raises(ServerError, match="boom"):
            await requests.request({})
        assert (await requests.request({})).result == [3]


async def test_events_come_as_they_are_sent() -> None:
    script = answering(
        start("1", 200, SSE),
        text('data: {"n": 1}\n\n: comment\n\ndata: {"n"'),
        text(": 2}\n\ndata: text\n\ndata: [DONE]\n\n"),
        end("1"),
    )
    async with requests_to(script) as requests, await requests.request({}) as response:
        assert response.result is None
        assert [event async for event in response] == [{"n": 1}, {"n": 2}, "text"]
        assert [event async for event in response] == []


async def test_a_second_reader_of_a_response_is_refused_and_the_first_goes_on() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        asked(socketeer)
        socketeer.line.send(start("1", 200, SSE))
        assert refused.wait(PATIENCE)
        socketeer.line.send(text("data: 1\n\n"), end("1"))
        socketeer.agree()

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


async def test_an_error_within_a_stream_is_raised_after_what_came_before() -> None:
    script = answering(
        start("1", 200, SSE),
        text('data: 1\n\nevent: error\ndata: {"message": "boom"}\n\n'),
        end("1"),
    )
    async with requests_to(script) as requests:
        response = await requests.request({})
        assert await anext(response) == 1
        with pytest.raises(StreamError, match="boom"):
            await anext(response)


async def test_what_is_neither_json_nor_events_comes_in_chunks() -> None:
    script = answering(start("1", 200, PNG), binary(b"\x89PNG"), binary(b""), text("é"), end("1"))
    async with requests_to(script) as requests:
        response = await requests.request({})
        assert [chunk async for chunk in response] == [b"\x89PNG", b"", "é".encode()]


async def test_several_requests_may_be_sent_ahead_and_are_answered_in_order() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        numbers = [asked(socketeer)["n"] for _ in range(10)]
        for number in numbers:
            request_id = f"id-{number}"
            socketeer.line.send(start(request_id), text(f'{{"n": {number}}}'), end(request_id))
        socketeer.agree()

    results: dict[int, WebSocketResponse] = {}

    async def ask(requests: HTTPOverWebSocket, number: int) -> None:
        results[number] = await requests.request({"n": number})

    async with requests_to(script) as requests, anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(ask, requests, number)
    assert {number: response.result["n"] for number, response in results.items()} == {
        number: number for number in range(10)
    }
    assert all(response.request_id == f"id-{number}" for number, response in results.items())


@pytest.mark.parametrize("in_block", [True, False])
async def test_a_stream_that_is_left_early_makes_room_for_the_next_response(in_block: bool) -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        asked(socketeer)
        socketeer.line.send(start("1", 200, SSE), text("data: 1\n\ndata: not read\n\n"))
        asked(socketeer)
        socketeer.line.send(text("data: 2\n\n") * 3, end("1"), start("2"), text("2"), end("2"))
        socketeer.agree()

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


async def test_a_request_that_is_cancelled_makes_room_for_the_next_response() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        assert asked(socketeer) == {"n": 1}
        assert asked(socketeer) == {"n": 2}
        socketeer.line.send(start("1"), text("1"), end("1"), start("2"), text("2"), end("2"))
        socketeer.agree()

    async with requests_to(script) as requests:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(requests.request, {"n": 1})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert (await requests.request({"n": 2})).result == 2


async def test_several_readers_may_wait_behind_a_request_that_was_given_up() -> None:
    go = threading.Event()

    def script(socketeer: ScriptedWebSocket) -> None:
        for _ in range(4):
            asked(socketeer)
        assert go.wait(PATIENCE)
        for name in ("1", "2", "3", "4"):
            socketeer.line.send(start(name), text(name), end(name))
        socketeer.agree()

    results: list[object] = []

    async def ask(requests: HTTPOverWebSocket, number: int) -> None:
        response = await requests.request({"n": number})
        results.append((number, response.result))

    async with requests_to(script) as requests:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(requests.request, {"n": 1})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            for number in (2, 3, 4):
                tasks.start_soon(ask, requests, number)
                await anyio.wait_all_tasks_blocked()
            go.set()
    assert results == [(2, 2), (3, 3), (4, 4)]


async def test_a_reader_that_waits_for_its_turn_may_be_cancelled() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        asked(socketeer)
        socketeer.line.send(start("1", 200, SSE), text("data: 1\n\n"))
        asked(socketeer)
        asked(socketeer)
        parts = [start(name) + text(name) + end(name) for name in ("2", "3")]
        socketeer.line.send(end("1"), *parts)
        socketeer.agree()

    async with requests_to(script) as requests:
        stream = await requests.request({})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(requests.request, {"n": 2})
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        third: list[WebSocketResponse] = []

        async def ask() -> None:
            third.append(await requests.request({"n": 3}))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert [event async for event in stream] == [1]
        assert third[0].result == 3


@pytest.mark.parametrize("end_of_it", [b"", close(1011, "crash")])
async def test_a_connection_that_is_lost_is_told_to_all_who_wait(end_of_it: bytes) -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        for _ in range(3):
            asked(socketeer)
        socketeer.line.send(start("1"), end_of_it)

    errors: list[RealtimeDisconnectedError] = []

    async def ask(requests: HTTPOverWebSocket) -> None:
        try:
            await requests.request({})
        except RealtimeDisconnectedError as error:
            errors.append(error)

    async with requests_to(script) as requests:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask, requests)
        with pytest.raises(RealtimeDisconnectedError):
            await requests.request({})
    assert [error.close_code for error in errors] == [1011 if end_of_it else 1006] * 3


async def test_a_response_that_cannot_be_read_ends_the_connection() -> None:
    async with requests_to(answering(text("what?"))) as requests:
        with pytest.raises(InvalidResponseError, match="did not begin with its start"):
            await requests.request({})
        with pytest.raises(RealtimeDisconnectedError):
            await requests.request({})


async def test_a_result_that_is_not_json_is_an_invalid_response() -> None:
    async with requests_to(answering(start("1"), text("{"), end("1"))) as requests:
        with pytest.raises(InvalidResponseError):
            await requests.request({})


async def test_compressed_responses_are_whole_or_an_error_and_the_next_request_goes_on() -> None:
    body, events = gzip.compress(b'{"n": 1}'), gzip.compress(b"data: 1\n\n" * 3)

    def script(socketeer: ScriptedWebSocket) -> None:
        parts = [
            (JSON, [body[:9], body[9:]]),
            (JSON, [body[:-1]]),
            (SSE, [events[:9], events[9:]]),
            (SSE, [events[:-1]]),
            (JSON, [body]),
        ]
        for number, (headers, chunks) in enumerate(parts):
            asked(socketeer)
            compressed = {**headers, "Content-Encoding": "gzip"}
            name = str(number)
            socketeer.line.send(start(name, 200, compressed), *map(binary, chunks), end(name))
        socketeer.agree()

    async with requests_to(script) as requests:
        assert (await requests.request({})).result == {"n": 1}
        with pytest.raises(InvalidResponseError, match="cut off"):
            await requests.request({})
        assert [event async for event in await requests.request({})] == [1, 1, 1]
        async with await requests.request({}) as broken:
            with pytest.raises(InvalidResponseError, match="cut off"):
                assert [event async for event in broken] == []
        assert (await requests.request({})).result == {"n": 1}


async def test_a_response_that_is_too_long_is_an_error_and_the_connection_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_over_websocket, "MAX_OUTPUT", 1000)

    def script(socketeer: ScriptedWebSocket) -> None:
        asked(socketeer)
        socketeer.line.send(start("1"), *[binary(b" " * 100)] * 100, end("1"))
        asked(socketeer)
        socketeer.line.send(start("2"), binary(b" " * 998), binary(b"{}"), end("2"))
        socketeer.agree()

    async with requests_to(script) as requests:
        with pytest.raises(InvalidResponseError, match="more than 1000 bytes"):
            await requests.request({})
        assert (await requests.request({})).result == {}


async def test_arguments_that_are_no_object_are_refused_and_the_connection_goes_on() -> None:
    async with requests_to(answering(start("1"), text("1"), end("1"))) as requests:
        with pytest.raises(InvalidRequestError):
            await requests.request([1])  # type: ignore[arg-type]  # that is the point
        assert (await requests.request({})).result == 1
