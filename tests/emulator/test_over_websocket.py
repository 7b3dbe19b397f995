"""HTTP requests over a WebSocket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel
from websockets.exceptions import InvalidStatus

from fal_async import AsyncClient
from fal_async.emulator import Fault
from tests.support.http import Arguments, count, echo
from tests.support.websocket_client import connect_websocket, receive_response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fal_async.emulator import Emulator


class Prompt(BaseModel):
    prompt: str


def test_requests_are_processed_in_order(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    ids = set[str]()
    with connect_websocket(fal, "ws/acme/app") as socket:
        for n in range(3):
            socket.send(json.dumps({"n": n}))
        for n in range(3):
            start, body, end = receive_response(socket)
            assert start["status"] == end["status"] == 200
            assert start["headers"]["Content-Type"] == "application/json"
            assert end["time_to_first_byte_seconds"] >= 0
            assert [json.loads(part) for part in body] == [{"n": n}]
            ids.add(start["request_id"])
    assert len(ids) == 3
    routes = [(request.route, request.host, request.status) for request in fal.requests]
    assert routes == [("over_websocket", "ws", 101), *[("run", "ws", 200)] * 3]
    assert fal.counters("acme/app").executions == 3


def test_stream_events_arrive_as_raw_bytes(fal: Emulator) -> None:
    fal.register("acme/app", count)
    with connect_websocket(fal, "ws/acme/app") as socket:
        socket.send('{"steps": 2}')
        start, body, _ = receive_response(socket)
    assert start["headers"]["Content-Type"].startswith("text/event-stream")
    assert body == [b'data: {"step":0}\n\n', b'data: {"step":1}\n\n']


def test_error_responses_keep_the_websocket_open(fal: Emulator) -> None:
    @fal.endpoint("acme/app")
    def shout(prompt: Prompt) -> Arguments:
        if prompt.prompt == "crash":
            raise ValueError
        return {"text": prompt.prompt.upper()}

    with connect_websocket(fal, "ws/acme/app") as socket:
        for message, status in (
            ("{}", 422),
            ("no json", 422),
            ('{"prompt": "crash"}', 500),
            ('{"prompt": "cat"}', 200),
        ):
            socket.send(message)
            start, _, end = receive_response(socket)
            assert start["status"] == end["status"] == status


def test_binary_and_empty_bodies_are_preserved(fal: Emulator) -> None:
    def repeat(arguments: Arguments) -> bytes:
        return b"\x00\xff" * int(arguments["n"])

    fal.register("acme/app", repeat)
    with connect_websocket(fal, "ws/acme/app") as socket:
        for n in (0, 1):
            socket.send(json.dumps({"n": n}))
            _, body, _ = receive_response(socket)
            assert body == [b"\x00\xff"] * n


def test_unauthorized_handshake_is_refused(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    for path, key, status in (
        ("ws/acme/app", None, 401),
        ("ws/acme/app", "wrong", 401),
        ("ws/acme/none", "", 404),
    ):
        with pytest.raises(InvalidStatus) as caught:
            connect_websocket(fal, path, key=key)
        assert caught.value.response.status_code == status


def test_app_paths_can_be_requested(fal: Emulator) -> None:
    fal.register("acme/app/deep", echo)
    with connect_websocket(fal, "ws/acme/app/deep") as socket:
        socket.send('{"a": 1}')
        _, body, _ = receive_response(socket)
    assert body == ['{"a":1}']


def test_run_limit_is_reported_in_the_response(fal: Emulator) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/app", concurrency=1)
    async def wait(arguments: Arguments) -> Arguments:
        await gate.wait()
        return arguments

    with (
        connect_websocket(fal, "ws/acme/app") as busy,
        connect_websocket(fal, "ws/acme/app") as socket,
    ):
        busy.send("{}")
        fal.wait_for(lambda: fal.counters("acme/app").running == 1)
        socket.send("{}")
        start, _, _ = receive_response(socket)
        assert start["status"] == 429
        gate.open()
        assert receive_response(busy)[0]["status"] == 200


def test_stream_ends_when_client_disconnects(fal: Emulator) -> None:
    ended, never = fal.gate(), fal.gate()

    @fal.endpoint("acme/app")
    async def forever(arguments: Arguments) -> AsyncGenerator[Arguments]:
        try:
            yield {}
            await never.wait()
        finally:
            ended.open()

    with connect_websocket(fal, "ws/acme/app") as socket:
        socket.send("{}")
        socket.recv(timeout=10)
    fal.wait_for(lambda: ended.is_open)


async def test_client_sends_requests_over_websocket(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    fal.register("acme/count", count)
    async with AsyncClient(fal.key, hosts=fal.hosts) as client:
        async with client.http_over_websocket("acme/app") as requests:
            for n in range(3):
                output = await requests.request({"n": n})
                assert output.result == {"n": n}
        async with client.http_over_websocket("acme/count") as requests:
            output = await requests.request({"steps": 3})
            assert output.status_code == 200


async def test_client_raises_on_refused_handshake(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="over_websocket", status=403))
    async with AsyncClient(fal.key, hosts=fal.hosts) as client:
        with pytest.raises(Exception, match="scripted fault 403"):
            async with client.http_over_websocket("acme/app"):
                raise AssertionError("it was let in")
