"""Scripted faults of HTTP requests over a WebSocket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import StreamingResponse
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from fal_async import AsyncClient
from fal_async.emulator import Fault
from fal_async.errors import InvalidResponseError, RealtimeDisconnectedError, ServerError
from tests.support.http import count, echo
from tests.support.websocket_client import connect_websocket, receive_response

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from websockets.sync.client import ClientConnection

    from fal_async._client.http_over_websocket import WebSocketResponse
    from fal_async.emulator import Emulator

PATH = "ws/acme/app"


@pytest.fixture(autouse=True)
def endpoints(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    fal.register("acme/count", count)


def send_request(socket: ClientConnection, **arguments: Any) -> None:
    socket.send(json.dumps(arguments))


def test_status_fault_affects_a_single_request(fal: Emulator) -> None:
    fal.fail("acme/app", Fault(route="run", status=503, body="later", headers={"Retry-After": "1"}))
    with connect_websocket(fal, PATH) as socket:
        send_request(socket, n=1)
        start, body, end = receive_response(socket)
        assert (start["status"], start["headers"]["Retry-After"]) == (503, "1")
        assert (body, end["status"]) == ([b"later"], 503)
        send_request(socket, n=2)
        assert json.loads(receive_response(socket)[1][0]) == {"n": 2}
    statuses = [(request.route, request.status) for request in fal.requests]
    assert statuses == [("over_websocket", 101), ("run", 503), ("run", 200)]
    assert fal.counters("acme/app").executions == 1


def test_fault_selects_requests_by_content(fal: Emulator) -> None:
    fal.fail("acme/app", Fault(when=lambda request: request.arguments == {"n": 1}, status=500))
    with connect_websocket(fal, PATH) as socket:
        for n in range(3):
            send_request(socket, n=n)
        assert [receive_response(socket)[0]["status"] for _ in range(3)] == [200, 500, 200]


def test_stream_fault_applies_to_streams(fal: Emulator) -> None:
    fal.fail("acme/count", Fault(route="stream", status=500))
    with (
        connect_websocket(fal, "ws/acme/count") as socket,
        connect_websocket(fal, "ws/acme/count/stream") as stream,
    ):
        for caller, status in ((socket, 200), (stream, 500)):
            send_request(caller, steps=1)
            assert receive_response(caller)[0]["status"] == status


def test_response_is_delayed_by_a_gate(fal: Emulator) -> None:
    gate = fal.gate()
    fal.fail("acme/app", Fault(route="run", delay=gate))
    with connect_websocket(fal, PATH) as socket:
        send_request(socket)
        fal.wait_for(lambda: fal.count("run") == 1)
        assert fal.counters("acme/app").executions == 0
        gate.open()
        assert receive_response(socket)[0]["status"] == 200


def test_fault_edits_headers_and_body(fal: Emulator) -> None:
    fault = Fault(
        route="run", headers={"X-Cats": "7"}, transform=lambda body: {**body, "more": True}
    )
    fal.fail("acme/app", fault)
    with connect_websocket(fal, PATH) as socket:
        send_request(socket, n=1)
        start, body, _ = receive_response(socket)
    assert start["headers"]["X-Cats"] == "7"
    assert json.loads(body[0]) == {"n": 1, "more": True}


def test_response_is_truncated_within_its_body(fal: Emulator) -> None:
    fal.fail("acme/app", Fault(route="run", cut=6))
    with connect_websocket(fal, PATH) as socket:
        send_request(socket, a="üü")
        assert json.loads(socket.recv(timeout=10))["type"] == "start"
        assert socket.recv(timeout=10) == '{"a":"'
        with pytest.raises(ConnectionClosedError):
            socket.recv(timeout=10)
    assert fal.counters("acme/app").executions == 1


def test_truncation_keeps_only_whole_characters(fal: Emulator) -> None:
    fal.fail("acme/app", Fault(route="run", cut=7))
    with connect_websocket(fal, PATH) as socket:
        send_request(socket, a="üü")
        socket.recv(timeout=10)
        assert socket.recv(timeout=10) == '{"a":"'


def test_split_characters_are_reassembled(fal: Emulator) -> None:
    async def parts() -> AsyncGenerator[bytes]:
        for byte in '"üx"'.encode():
            yield bytes([byte])

    fal.register("acme/parts", lambda: StreamingResponse(parts(), media_type="application/json"))
    with connect_websocket(fal, "ws/acme/parts") as socket:
        send_request(socket)
        assert receive_response(socket)[1] == ['"', "ü", "x", '"']


@pytest.mark.parametrize(
    ("fault", "executions"),
    [
        (Fault(route="run", drop=True), 0),
        (Fault(route="run", reset=True), 0),
        (Fault(route="run", raw_bytes=b"\xff\xff\xff"), 0),
        (Fault(route="run", drop_response=True), 1),
    ],
    ids=["drop", "reset", "raw_bytes", "drop_response"],
)
def test_connection_drops_before_the_response(fault: Fault, executions: int, fal: Emulator) -> None:
    fal.fail("acme/app", fault)
    with connect_websocket(fal, PATH) as socket:
        send_request(socket)
        with pytest.raises(ConnectionClosedError) as caught:
            socket.recv(timeout=10)
    assert caught.value.rcvd is None
    assert fal.counters("acme/app").executions == executions


@pytest.mark.parametrize(("after", "executions"), [(0, 0), (1, 1)])
def test_websocket_is_closed_with_a_code(after: int, executions: int, fal: Emulator) -> None:
    fal.fail("acme/app", Fault(route="run", skip=1, close=1011, body="overloaded", after=after))
    with connect_websocket(fal, PATH) as socket:
        send_request(socket)
        assert receive_response(socket)[0]["status"] == 200
        send_request(socket)
        for _ in range(after):
            assert json.loads(socket.recv(timeout=10))["type"] == "start"
        with pytest.raises(ConnectionClosed, match="received 1011") as caught:
            socket.recv(timeout=10)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.reason == "overloaded"
    assert fal.counters("acme/app").executions == 1 + executions


def test_extra_message_is_injected(fal: Emulator) -> None:
    fal.fail("acme/app", Fault(route="run", message="not yours"))
    with connect_websocket(fal, PATH) as socket:
        send_request(socket)
        assert socket.recv(timeout=10) == "not yours"
        assert receive_response(socket)[0]["status"] == 200


def test_response_stalls_midway(fal: Emulator) -> None:
    fal.fail("acme/app", Fault(route="run", stall=True, after=1))
    options: dict[str, Any] = {"ping_interval": 0.05, "ping_timeout": 0.3, "close_timeout": 0.05}
    with connect_websocket(fal, PATH, **options) as socket:
        send_request(socket)
        assert json.loads(socket.recv(timeout=10))["type"] == "start"
        with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
            socket.recv(timeout=10)


async def test_client_raises_one_error_and_continues(fal: Emulator) -> None:
    fal.fail("acme/app", Fault(route="run", status=500))
    async with (
        AsyncClient(fal.key, hosts=fal.hosts) as client,
        client.http_over_websocket("acme/app") as requests,
    ):
        with pytest.raises(ServerError, match="scripted fault 500") as caught:
            await requests.request({"n": 1})
        assert caught.value.request_id == fal.requests[-1].request_id
        assert (await requests.request({"n": 2})).result == {"n": 2}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(route="run", cut=3), RealtimeDisconnectedError),
        (Fault(route="run", drop_response=True), RealtimeDisconnectedError),
        (Fault(route="run", close=1011), RealtimeDisconnectedError),
        (Fault(route="run", raw_bytes=b"\xff\xff\xff"), InvalidResponseError),
        (Fault(route="run", message="no start"), InvalidResponseError),
    ],
    ids=["cut", "drop_response", "close", "raw_bytes", "message"],
)
async def test_client_reports_a_missing_response(
    fault: Fault, error: type[Exception], fal: Emulator
) -> None:
    fal.fail("acme/app", fault)
    async with AsyncClient(fal.key, hosts=fal.hosts) as client:
        with pytest.raises(error):
            async with client.http_over_websocket("acme/app") as requests:
                await requests.request({"n": 1})
        async with client.http_over_websocket("acme/app") as requests:
            assert (await requests.request({"n": 2})).result == {"n": 2}


async def test_client_yields_events_before_truncation(
    fal: Emulator,
) -> None:
    fal.fail("acme/count", Fault(route="run", cut=len(b'data: {"step":0}\n\ndata: ')))
    events: list[Any] = []

    async def read_on(response_stream: WebSocketResponse) -> None:
        async for event in response_stream:
            events.append(event)  # noqa: PERF401 - kept when the stream is interrupted

    async with (
        AsyncClient(fal.key, hosts=fal.hosts) as client,
        client.http_over_websocket("acme/count") as requests,
    ):
        response_stream = await requests.request({"steps": 3})
        with pytest.raises(RealtimeDisconnectedError):
            await read_on(response_stream)
    assert events == [{"step": 0}]
