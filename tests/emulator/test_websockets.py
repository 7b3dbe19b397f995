"""WebSocket apps, compression and scripted faults."""

from __future__ import annotations

import socket as sockets
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from websockets.exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    InvalidMessage,
    InvalidStatus,
)

from fal_async import AsyncClient
from fal_async.emulator import DisconnectedError, Emulator, Fault, Job, Socket
from fal_async.errors import InvalidRequestError, InvalidResponseError, RealtimeDisconnectedError
from tests.support.http import Arguments, echo
from tests.support.websocket_client import (
    assert_not_forwarded,
    connect_websocket,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from starlette.requests import Request
    from starlette.websockets import WebSocket

LIVE = "run/acme/live/realtime"


async def repeat(socket: Socket) -> None:
    async for message in socket:
        await socket.send(message)


def closing(code: int) -> Any:
    return pytest.raises(ConnectionClosed, match=f"received {code}")


def test_text_and_bytes_are_delivered(fal: Emulator) -> None:
    fal.websocket("acme/socket")(repeat)
    with connect_websocket(fal, "run/acme/socket/any/path?a=1") as socket:
        for message in ("text", b"\x00\xff", "", b"", "ü" * 100_000):
            socket.send(message)
            assert socket.recv(timeout=10) == message
    (request,) = fal.requests
    assert (request.route, request.status, request.query) == ("socket", 101, "a=1")
    assert fal.counters("acme/socket").requests["socket"] == 1


def test_websocket_app_sees_job_and_close_code(fal: Emulator) -> None:
    @fal.websocket("acme/socket")
    async def tell(socket: Socket, job: Job) -> None:
        await socket.send(job.path)
        await socket.close(4001, "enough")

    with connect_websocket(fal, "run/acme/socket/chat") as socket:
        assert socket.recv(timeout=10) == "/chat"
        with pytest.raises(ConnectionClosedError) as caught:
            socket.recv(timeout=10)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough")


def test_returning_function_closes_normally(fal: Emulator) -> None:
    @fal.websocket("acme/socket")
    async def leave(socket: Socket) -> None:
        await socket.recv()

    with connect_websocket(fal, "run/acme/socket") as socket:
        socket.send("")
        with closing(1000):
            socket.recv(timeout=10)


def test_crash_drops_the_connection(fal: Emulator) -> None:
    @fal.websocket("acme/socket")
    async def crash(socket: Socket) -> None:
        raise ValueError("no")

    with connect_websocket(fal, "run/acme/socket") as socket:
        with pytest.raises(ConnectionClosedError) as caught:
            socket.recv(timeout=10)
        assert caught.value.rcvd is None
        assert socket.close_code == 1006


def test_websocket_app_sees_client_disconnect(fal: Emulator) -> None:
    codes: list[int] = []
    done = fal.gate()

    @fal.websocket("acme/socket")
    async def wait(socket: Socket) -> None:
        try:
            await socket.recv()
        except DisconnectedError as error:
            codes.append(error.code)
            done.open()
            raise

    with connect_websocket(fal, "run/acme/socket") as socket:
        socket.close(4002)
    fal.wait_for(lambda: done.is_open)
    assert codes == [4002]


def test_blocking_function_is_not_a_websocket_app(fal: Emulator) -> None:
    with pytest.raises(InvalidRequestError, match="async"):
        fal.websocket("acme/socket")(echo)


async def chat(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol="chat", headers=[(b"x-app", b"yes")])
    await websocket.send_json({"path": websocket.url.path, "offers": websocket["subprotocols"]})
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


async def closed(websocket: WebSocket) -> None:
    await websocket.close()


async def sent_away(websocket: WebSocket) -> None:
    await websocket.send_denial_response(PlainTextResponse("full", 503))


async def crashing(websocket: WebSocket) -> None:
    await websocket.accept()
    raise ValueError("no")


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("home")


APP = Starlette(
    routes=[
        Route("/", home, methods=["POST"]),
        WebSocketRoute("/chat", chat),
        WebSocketRoute("/closed", closed),
        WebSocketRoute("/away", sent_away),
        WebSocketRoute("/crash", crashing),
    ]
)


def test_asgi_runner_receives_websockets(fal: Emulator) -> None:
    fal.register("acme/app", APP)
    with connect_websocket(fal, "run/acme/app/chat", subprotocols=["chat", "talk"]) as socket:
        assert socket.subprotocol == "chat"
        assert socket.response is not None
        assert socket.response.headers["x-app"] == "yes"
        assert socket.recv(timeout=10) == '{"path":"/chat","offers":["chat","talk"]}'
        socket.send("hello")
        assert socket.recv(timeout=10) == "HELLO"


def test_app_may_serve_websockets_only(fal: Emulator) -> None:
    fal.websocket("acme/app")(APP)
    fal.register("acme/app", echo)
    with connect_websocket(fal, "run/acme/app/chat", subprotocols=["chat"]) as socket:
        socket.recv(timeout=10)
        socket.send("hello")
        assert socket.recv(timeout=10) == "HELLO"


def test_asgi_app_may_refuse_or_crash(fal: Emulator) -> None:
    fal.register("acme/app", APP)
    for path in ("closed", "away", "none"):
        assert_not_forwarded(fal, f"run/acme/app/{path}")
    with (
        connect_websocket(fal, "run/acme/app/crash") as socket,
        pytest.raises(ConnectionClosedError) as broken,
    ):
        socket.recv(timeout=10)
    assert broken.value.rcvd is None


def test_messages_over_16_mib_are_rejected(fal: Emulator) -> None:
    fal.websocket("acme/socket")(repeat)
    with connect_websocket(fal, "run/acme/socket") as socket:
        socket.send(bytes(16 * 1024 * 1024 + 1))
        with closing(1009):
            socket.recv(timeout=10)
    with connect_websocket(fal, "run/acme/socket", max_size=None) as socket:
        socket.send(bytes(16 * 1024 * 1024))
        assert len(socket.recv(timeout=10)) == 16 * 1024 * 1024


def test_fragmented_messages_are_reassembled(fal: Emulator) -> None:
    fal.websocket("acme/socket")(repeat)
    with connect_websocket(fal, "run/acme/socket") as socket:
        socket.send(iter(["a", "b", "c"]))
        assert socket.recv(timeout=10) == "abc"
        assert socket.ping().wait(10)


def test_compression_is_off_by_default(fal: Emulator) -> None:
    fal.websocket("acme/socket")(repeat)
    with connect_websocket(fal, "run/acme/socket", compression="deflate") as socket:
        assert socket.response is not None
        assert "sec-websocket-extensions" not in socket.response.headers
        socket.send("text")
        assert socket.recv(timeout=10) == "text"


def test_compression_is_accepted_when_enabled() -> None:
    with Emulator(compression=True) as fal:
        fal.websocket("acme/socket")(repeat)
        with connect_websocket(fal, "run/acme/socket") as socket:
            assert socket.response is not None
            assert "sec-websocket-extensions" not in socket.response.headers
        fal.fail("acme/socket", Fault(cut=1000))
        with connect_websocket(fal, "run/acme/socket", compression="deflate") as socket:
            assert socket.response is not None
            extensions = socket.response.headers["sec-websocket-extensions"]
            assert extensions.startswith("permessage-deflate")
            for message in ("ü" * 100_000, bytes(100_000), iter(["a", "b", "c"])):
                socket.send(message)
            assert socket.recv(timeout=10) == "ü" * 100_000
            assert socket.recv(timeout=10) == bytes(100_000)
            assert socket.recv(timeout=10) == "abc"


async def test_client_compresses_when_allowed() -> None:
    message = "cats " * 20_000
    with Emulator(compression=True) as fal:
        fal.websocket("acme/socket")(repeat)
        async with AsyncClient(fal.key, hosts=fal.hosts) as client:
            fal.fail("acme/socket", Fault(cut=1000, times=None))  # truncates an uncompressed one
            async with client.ws_connect("acme/socket", compression=True) as socket:
                await socket.send(message)
                assert await socket.recv() == message
            async with client.ws_connect("acme/socket") as socket:
                await socket.send(message)
                with pytest.raises(RealtimeDisconnectedError):
                    await socket.recv()


def test_plain_request_gets_a_response(fal: Emulator) -> None:
    fal.websocket("acme/socket")(repeat)
    host = fal.url.removeprefix("http://").partition(":")
    with sockets.create_connection((host[0], int(host[2])), timeout=10) as peer:
        peer.sendall(
            b"GET /run/acme/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nAuthorization: Key %s\r\n\r\n" % fal.key.encode()
        )
        assert peer.recv(65536).startswith(b"HTTP/1.1 400")


def test_websockets_work_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    chain = tmp_path / "chain.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(chain))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with Emulator(certfile=str(chain)) as fal:
        fal.websocket("acme/socket")(repeat)
        with connect_websocket(fal, "run/acme/socket", ssl=context) as socket:
            socket.send(b"x" * 1_000_000)
            assert socket.recv(timeout=10) == b"x" * 1_000_000


def test_fault_refuses_handshake_with_status(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    fal.fail("acme/live", Fault(route="realtime", status=503, body={"detail": "later"}))
    with pytest.raises(InvalidStatus) as caught:
        connect_websocket(fal, LIVE)
    assert caught.value.response.status_code == 503
    assert caught.value.response.body == b'{"detail":"later"}'
    assert [request.status for request in fal.requests] == [503]
    with connect_websocket(fal, LIVE) as socket:
        socket.send(pack(a=1))
        assert unpack(socket.recv(timeout=10)) == {"a": 1}


def test_fault_closes_like_the_real_edge(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    reason = "Error while forwarding the request"
    fal.fail("acme/live", Fault(route="realtime", close=1011, body=reason))
    with connect_websocket(fal, LIVE) as socket:
        with closing(1011) as caught:
            socket.recv(timeout=10)
        assert caught.value.rcvd.reason == reason


def test_fault_closes_after_given_messages(fal: Emulator) -> None:
    fal.websocket("acme/socket")(repeat)
    fal.fail("acme/socket", Fault(route="socket", close=4000, after=2))
    with connect_websocket(fal, "run/acme/socket") as socket:
        for message in ("a", "b"):
            socket.send(message)
            assert socket.recv(timeout=10) == message
        with closing(4000):
            socket.recv(timeout=10)


def test_fault_drops_connection_before_handshake(fal: Emulator) -> None:
    fal.websocket("acme/socket")(repeat)
    fal.fail(
        "acme/socket", Fault(drop=True), Fault(reset=True), Fault(raw_bytes=b"HTTP/1.1 nonsense")
    )
    for _ in range(3):
        with pytest.raises((OSError, EOFError, InvalidMessage)):
            connect_websocket(fal, "run/acme/socket")
    with connect_websocket(fal, "run/acme/socket") as socket:
        socket.send("well")
        assert socket.recv(timeout=10) == "well"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("count", range(12))
def test_fault_truncates_a_frame(fal: Emulator, count: int, reset: bool) -> None:
    fal.realtime("acme/live")(echo)
    fal.fail("acme/live", Fault(route="realtime", cut=count, after=1, reset=reset))
    with connect_websocket(fal, LIVE) as socket:
        socket.send(pack(a=1))
        assert unpack(socket.recv(timeout=10)) == {"a": 1}
        with suppress(ConnectionClosedError):  # cut=0 ends the connection before the send
            socket.send(pack(b="0123456789"))
        with pytest.raises(ConnectionClosedError) as caught:
            socket.recv(timeout=10)
        assert caught.value.rcvd is None


def test_fault_stalls_the_connection(fal: Emulator) -> None:
    fal.websocket("acme/socket")(repeat)
    fal.fail("acme/socket", Fault(route="socket", stall=True))
    options: dict[str, Any] = {"ping_interval": 0.05, "ping_timeout": 0.05, "close_timeout": 0.05}
    with connect_websocket(fal, "run/acme/socket", **options) as socket:
        socket.send("hello")
        with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
            socket.recv(timeout=10)
    fal.wait_for(lambda: fal.connections == 0)


async def test_client_survives_invalid_msgpack(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    fal.fail("acme/live", Fault(route="realtime", message=b"\xc1"))
    async with (
        AsyncClient(fal.key, hosts=fal.hosts) as client,
        client.realtime("acme/live") as session,
    ):
        with pytest.raises(InvalidResponseError):
            await session.recv()


async def test_client_detects_an_idle_peer(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    fal.fail("acme/live", Fault(route="realtime", stall=True))
    async with (
        AsyncClient(fal.key, hosts=fal.hosts) as client,
        client.realtime("acme/live", ping_interval=0.05, ping_timeout=0.05) as session,
    ):
        with pytest.raises(RealtimeDisconnectedError):
            await session.recv()


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_client_detects_a_truncated_frame(fal: Emulator, count: int) -> None:
    fal.realtime("acme/live")(echo)
    fal.fail("acme/live", Fault(route="realtime", cut=count, reset=True))
    async with (
        AsyncClient(fal.key, hosts=fal.hosts) as client,
        client.realtime("acme/live") as session,
    ):
        with suppress(RealtimeDisconnectedError):  # cut=0 ends the connection before the send
            await session.send({"a": 1})
        with pytest.raises(RealtimeDisconnectedError):
            await session.recv()
        assert session.close_code == 1006


async def test_client_opens_an_app_websocket(fal: Emulator) -> None:
    fal.websocket("acme/socket")(repeat)
    async with AsyncClient(fal.key, hosts=fal.hosts) as client:
        for use_jwt in (True, False):
            async with client.ws_connect("acme/socket", path="/chat", use_jwt=use_jwt) as socket:
                for message in ("text", b"\x00\xff", b"x" * 100_000):
                    await socket.send(message)
                    assert await socket.recv() == message


def test_garbage_replaces_a_frame(fal: Emulator) -> None:
    fal.realtime("acme/live")(echo)
    fal.fail("acme/live", Fault(route="realtime", raw_bytes=b"\xff\xff\xff", after=1))
    with connect_websocket(fal, LIVE) as socket:
        socket.send(pack(a=1))
        assert unpack(socket.recv(timeout=10)) == {"a": 1}
        with pytest.raises(ConnectionClosedError, match="1002"):
            socket.recv(timeout=10)


def test_session_arguments_are_recorded(fal: Emulator) -> None:
    heard: list[Arguments] = []

    @fal.realtime("acme/live")
    def listen(arguments: Arguments) -> Arguments:
        heard.append(arguments)
        return {}

    with connect_websocket(fal, LIVE) as socket:
        socket.send(pack(a=[1, {"b": b"c"}]))
        socket.recv(timeout=10)
    assert heard == [{"a": [1, {"b": b"c"}]}]


def test_websocket_app_lifespan_runs_once() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        events.append("startup")
        yield
        events.append("shutdown")

    app = Starlette(routes=[WebSocketRoute("/chat", chat)], lifespan=lifespan)
    with Emulator() as fal:
        fal.websocket("acme/app")(app)
        for _ in range(2):
            with connect_websocket(fal, "run/acme/app/chat", subprotocols=["chat"]) as socket:
                socket.recv(timeout=10)
    assert events == ["startup", "shutdown"]
