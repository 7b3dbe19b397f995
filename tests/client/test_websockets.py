"""Methods that open WebSockets: authentication, URLs, rejections, closing the client."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import orjson
import ormsgpack
import pytest
from websockets.frames import Opcode

from fal_async import AsyncClient, Hosts
from fal_async._core.secrets import Secret
from fal_async.errors import (
    AuthenticationError,
    ClientClosedError,
    FalClientError,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RealtimeDisconnectedError,
    ServerError,
)
from tests.support.raw_server import PATIENCE, RawConnection, RawServer
from tests.support.websocket_server import ScriptedWebSocket, binary, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable
    from contextlib import AbstractAsyncContextManager

KEY = "id:secret"


class Platform:
    """A platform that issues tokens over HTTP, and runs a script on WebSockets.

    Attributes:
        token_requests: The bodies of the requests for tokens.
        handshakes: The paths and ``Authorization`` headers of the handshakes.
    """

    def __init__(self, script: Callable[[ScriptedWebSocket], None], *, token: bytes = b"") -> None:
        self.token_requests: list[dict[str, Any]] = []
        self.handshakes: list[tuple[str, str | None]] = []
        self._script = script
        self._token = token

    def __call__(self, connection: RawConnection) -> None:
        while not connection._buffer and connection._fill():
            pass
        if connection._buffer.startswith(b"POST"):
            while request := connection.request():
                head, _, body = request.partition(b"\r\n\r\n")
                assert head.startswith(b"POST /rest/tokens/ HTTP/1.1\r\n")
                assert f"authorization: key {KEY}".encode() in head.lower()
                self.token_requests.append(orjson.loads(body))
                token = self._token or b'"token-%d"' % len(self.token_requests)
                connection.send(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(token), token)
                )
        elif connection._buffer:
            server = ScriptedWebSocket(connection)
            handshake = server.request
            self.handshakes.append((handshake.path, handshake.headers.get("Authorization")))
            self._script(server)


def make_client(peer: RawServer, key: Any = KEY) -> AsyncClient:
    return AsyncClient(key, hosts=Hosts.at(peer.url))


def echo(server: ScriptedWebSocket) -> None:
    while (frame := server.read()).opcode is not Opcode.CLOSE:
        send = text(bytes(frame.data).decode()) if frame.opcode is Opcode.TEXT else None
        server.send(send or binary(bytes(frame.data)))
    server.send(b"\x88\x02\x03\xe8")


async def test_realtime_authenticates_by_token() -> None:
    platform = Platform(echo)
    with RawServer(platform) as peer:
        async with (
            make_client(peer) as client,
            client.realtime("owner/app", max_buffering=5, token_expiration=60) as connection,
        ):
            await connection.send({"image": b"\xff"})
            assert await connection.recv() == {"image": b"\xff"}
    assert platform.token_requests == [{"allowed_apps": ["app"], "token_expiration": 60}]
    path = "/run/owner/app/realtime?max_buffering=5&fal_jwt_token=token-1"
    assert platform.handshakes == [(path, None)]


async def test_use_jwt_false_authenticates_by_key() -> None:
    platform = Platform(echo)
    with RawServer(platform) as peer:
        async with make_client(peer) as client:
            async with client.realtime("owner/app/realtime", use_jwt=False) as connection:
                await connection.send({})
            async with client.ws_connect("owner/app", path="/chat", use_jwt=False) as socket:
                await socket.send("hello")
                assert await socket.recv() == "hello"
    assert platform.token_requests == []
    assert platform.handshakes == [
        ("/run/owner/app/realtime", f"Key {KEY}"),
        ("/run/owner/app/chat", f"Key {KEY}"),
    ]


async def test_ws_connect_authenticates_by_token() -> None:
    platform = Platform(echo, token=b'{"token": "abc"}')
    with RawServer(platform) as peer:
        async with make_client(peer) as client, client.ws_connect("owner/app") as socket:
            await socket.send(b"hello")
            assert await socket.recv() == b"hello"
    assert platform.handshakes == [("/run/owner/app?fal_jwt_token=abc", None)]


async def test_http_over_websocket_authenticates_by_key() -> None:
    def script(server: ScriptedWebSocket) -> None:
        assert orjson.loads(bytes(server.read().data)) == {"n": 1}
        meta = {"request_id": "1", "status": 200}
        server.send(text(orjson.dumps({"type": "start", **meta}).decode()))
        server.send(text('{"n": 2}'))
        server.send(text(orjson.dumps({"type": "end", **meta}).decode()))
        server.confirm_close()

    platform = Platform(script)
    with RawServer(platform) as peer:
        async with (
            make_client(peer) as client,
            client.http_over_websocket("owner/app/dev") as requests,
        ):
            assert (await requests.request({"n": 1})).result == {"n": 2}
    assert platform.handshakes == [("/ws/owner/app/dev", f"Key {KEY}")]


async def test_each_reconnect_has_new_token() -> None:
    def script(server: ScriptedWebSocket) -> None:
        server.send(binary(bytes(server.read().data)))

    platform = Platform(script)
    with RawServer(platform) as peer:
        async with (
            make_client(peer) as client,
            client.realtime("owner/app", reconnect=True) as connection,
        ):
            for number in range(3):
                await connection.send({"n": number})
                assert await connection.recv() == {"n": number}
                with pytest.raises(RealtimeDisconnectedError):
                    await connection.recv()
    assert [path for path, _ in platform.handshakes] == [
        f"/run/owner/app/realtime?fal_jwt_token=token-{number}" for number in (1, 2, 3)
    ]


REJECTIONS: list[tuple[int, bytes, type[FalClientError], str]] = [
    (401, b'{"detail": "invalid key credentials"}', AuthenticationError, "invalid key credentials"),
    (403, b'{"detail": "not yours"}', PermissionDeniedError, "not yours"),
    (404, b'{"detail": "Application \\"app\\" not found"}', NotFoundError, "not found"),
    (429, b"", RateLimitError, "status 429"),
    (503, b"<html>nginx", ServerError, "status 503"),
]


@pytest.mark.parametrize(("status", "body", "kind", "words"), REJECTIONS)
async def test_rejected_handshake_raises_typed_error(
    status: int, body: bytes, kind: type[FalClientError], words: str
) -> None:
    head = f"HTTP/1.1 {status} No\r\nx-fal-request-id: r-1\r\nContent-Length: {len(body)}\r\n\r\n"
    with (
        RawServer(lambda connection: connection.respond(head.encode(), body)) as peer,
    ):
        async with make_client(peer) as client:
            calls: list[AbstractAsyncContextManager[object]] = [
                client.realtime("owner/app", use_jwt=False),
                client.ws_connect("owner/app", use_jwt=False),
                client.http_over_websocket("owner/app"),
            ]
            for call in calls:
                with pytest.raises(FalClientError, match=words) as caught:
                    await call.__aenter__()
                assert type(caught.value) is kind
                assert caught.value.request_id == "r-1"  # type: ignore[attr-defined]  # HTTP errors have it
                assert caught.value.__cause__ is None


class Login:
    """A source of tokens, the first of which is rejected."""

    can_refresh = True

    def __init__(self) -> None:
        self.rejected: list[Secret] = []

    async def authorization(self) -> Secret:
        return Secret("Bearer new" if self.rejected else "Bearer old")

    def invalidate(self, value: Secret) -> None:
        self.rejected.append(value)


async def test_rejected_login_is_refreshed_once() -> None:
    sockets: list[str] = []

    def script(connection: RawConnection) -> None:
        if connection.number == 1:
            assert b"authorization: bearer old" in connection.request().lower()
            connection.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        else:
            server = ScriptedWebSocket(connection)
            sockets.append(server.request.headers["Authorization"])
            server.confirm_close()

    login = Login()
    with RawServer(script) as peer:
        client = make_client(peer)
        client._dispatcher = replace(client._dispatcher, credentials=login)
        async with client, client.realtime("owner/app", use_jwt=False):
            pass
    assert (login.rejected, sockets) == ([Secret("Bearer old")], ["Bearer new"])


async def test_missing_token_opens_no_websocket() -> None:
    platform = Platform(echo, token=b'{"detail": "Apps are not allowed"}')
    with RawServer(platform) as peer:
        async with make_client(peer) as client:
            with pytest.raises(InvalidResponseError, match="no token: Apps are not allowed"):
                await client.realtime("owner/app").__aenter__()
    assert platform.handshakes == []


async def test_handshake_has_additional_headers() -> None:
    seen: list[str] = []

    def script(server: ScriptedWebSocket) -> None:
        seen.append(server.request.headers["X-Fal-Runner-Hint"])
        server.confirm_close()

    with RawServer(Platform(script)) as peer:
        hint = {"X-Fal-Runner-Hint": "h"}
        async with make_client(peer) as client, client.realtime("owner/app", headers=hint):
            pass
    assert seen == ["h"]


async def test_caller_may_encode_and_decode() -> None:
    with RawServer(Platform(echo)) as peer:
        async with (
            make_client(peer) as client,
            client.realtime(
                "owner/app",
                encode_message=lambda value: ormsgpack.packb([value]),
                decode_message=lambda message: ormsgpack.unpackb(message)[0],
            ) as connection,
        ):
            await connection.send("anything")
            assert await connection.recv() == "anything"


def all_connections(client: AsyncClient) -> list[AbstractAsyncContextManager[Any]]:
    return [
        client.realtime("owner/app"),
        client.realtime("owner/app", use_jwt=False),
        client.ws_connect("owner/app"),
        client.ws_connect("owner/app", use_jwt=False),
        client.http_over_websocket("owner/app"),
    ]


async def test_closed_client_opens_no_websocket() -> None:
    with RawServer(Platform(echo)) as peer:
        client = make_client(peer)
        await client.aclose()
        for call in all_connections(client):
            with pytest.raises(ClientClosedError):
                await call.__aenter__()
    assert peer.connections == []


async def test_closing_client_sends_close_frames() -> None:
    codes: list[int] = []
    platform = Platform(lambda server: codes.append(server.confirm_close()))
    with RawServer(platform) as peer:
        client = make_client(peer)
        async with (
            client.realtime("owner/app", use_jwt=False) as session,
            client.realtime("owner/app", use_jwt=False, reconnect=True) as lasting,
            client.ws_connect("owner/app") as socket,
            client.with_options(key="another:key").http_over_websocket("owner/app") as requests,
            anyio.create_task_group() as tasks,
        ):
            ends: list[object] = []

            async def listen(messages: AsyncIterable[object]) -> None:
                ends.append([message async for message in messages])

            tasks.start_soon(listen, session)
            tasks.start_soon(listen, socket)
            await anyio.wait_all_tasks_blocked()
            await client.aclose()
            assert session.close_code == socket.close_code == 1000
            for call in (session.send({}), socket.send(b""), requests.request({})):
                with pytest.raises(RealtimeDisconnectedError):
                    await call
            with pytest.raises(ClientClosedError):  # no reconnect
                await lasting.send({})
        assert ends == [[], []]
    assert codes == [1000] * 4  # the server has ended, and with it its threads


async def test_closing_client_during_handshake() -> None:
    def script(connection: RawConnection) -> None:
        requested.set()
        assert closed.wait(PATIENCE)
        ScriptedWebSocket(connection).connection.wait_closed()

    requested, closed = threading.Event(), threading.Event()
    with RawServer(script) as peer:
        client = make_client(peer)

        async def connect() -> None:
            with pytest.raises(ClientClosedError):
                await client.ws_connect("owner/app", use_jwt=False).__aenter__()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect)
            await anyio.to_thread.run_sync(requested.wait)
            await client.aclose()
            closed.set()
        await anyio.to_thread.run_sync(peer.wait_ended)


async def test_cancelled_client_close_closes_websockets() -> None:
    with RawServer(Platform(lambda server: server.connection.wait_closed())) as peer:
        client = make_client(peer)
        async with client.ws_connect("owner/app", use_jwt=False) as socket:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await client.aclose()
            assert scope.cancelled_caught
            await anyio.to_thread.run_sync(peer.wait_ended)
            assert socket.close_code == 1006


WRONG: list[dict[str, Any]] = [
    {"application": "nonsense"},
    {"path": "../admin"},
    {"path": None},
    {"max_buffering": 61},
    {"max_buffering": 5.0},
    {"token_expiration": 0},
    {"token_expiration": "120"},
    {"token_expiration": 1.5},
    {"max_message_size": 0},
    {"max_message_size": True},
    {"max_message_size": "1 MB"},
    {"open_timeout": 0},
    {"ping_interval": -1},
    {"ping_timeout": float("nan")},
    {"headers": {"A": "b\r\nc: d"}},
    {"headers": {"Host": "elsewhere"}},
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_invalid_arguments_are_rejected_before_io(wrong: dict[str, Any]) -> None:
    async with AsyncClient(KEY, hosts=Hosts.at("http://127.0.0.1:9")) as client:
        with pytest.raises(InvalidRequestError):
            await client.realtime(**{"application": "owner/app", **wrong}).__aenter__()
