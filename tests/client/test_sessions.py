"""Realtime sessions and WebSocket connections: messages, errors, reconnecting."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import orjson
import ormsgpack
import pytest
from websockets.frames import Opcode

from fal_async._client.sessions import (
    AsyncRealtimeConnection,
    ReconnectingWebSocket,
    WebSocketConnection,
)
from fal_async._net.tasks import ConnectionContext
from fal_async._websocket.handshake import connect_websocket
from fal_async.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
    InvalidResponseError,
    RealtimeDisconnectedError,
    RealtimeError,
)
from tests.support.raw_server import PATIENCE, RawConnection, RawServer
from tests.support.websocket_server import (
    ScriptedWebSocket,
    binary,
    close,
    closing,
    echo,
    text,
    websocket_script,
    websockets_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from fal_async import AsyncClient
    from fal_async._websocket.connection import WebSocket
    from fal_async.emulator import Emulator, Socket

TIMEOUT = (
    '{"type": "x-fal-error", "error": "TIMEOUT", "reason": "no inputs, reconnect when needed!"}'
)


def connect_to(url: str) -> Callable[[], Any]:
    async def open_socket() -> WebSocket:
        return await connect_websocket(url, ping_interval=None)

    return open_socket


def open_session(
    connect: Callable[[], Awaitable[WebSocket]],
    *,
    encode: Callable[[Any], str | bytes] | None = None,
    decode: Callable[[bytes], Any] | None = None,
    reconnect: bool = False,
) -> ConnectionContext[AsyncRealtimeConnection]:
    async def open_connection() -> AsyncRealtimeConnection:
        websocket = ReconnectingWebSocket(await connect(), connect if reconnect else None)
        return AsyncRealtimeConnection(websocket, encode, decode)

    return ConnectionContext(open_connection)


@asynccontextmanager
async def session(url: str, **options: Any) -> AsyncGenerator[AsyncRealtimeConnection]:
    async with open_session(connect_to(url), **options) as connection:
        yield connection


@asynccontextmanager
async def session_with(
    script: Callable[[ScriptedWebSocket], None], **options: Any
) -> AsyncGenerator[AsyncRealtimeConnection]:
    with RawServer(websocket_script(script)) as peer:
        async with session(f"ws://127.0.0.1:{peer.port}/", **options) as connection:
            yield connection


def packed(value: object) -> bytes:
    return binary(ormsgpack.packb(value))


def arguments(server: ScriptedWebSocket) -> Any:
    """Read and decode the arguments that the client sent."""
    frame = server.read()
    assert frame.opcode is Opcode.BINARY
    return ormsgpack.unpackb(bytes(frame.data))


async def test_arguments_and_results_keep_bytes() -> None:
    with websockets_server(echo) as url:
        async with session(url) as connection:
            for value in ({"prompt": "a cat", "seed": 1}, {"image": b"\xff\xd8" * 50_000}, {}):
                await connection.send(value)
                assert await connection.recv() == value


async def test_long_results_survive_the_next_ones() -> None:
    with websockets_server(echo) as url:
        async with session(url) as connection:
            results: list[Any] = []
            for image in (b"a" * 300_000, b"b" * 299_000, b"c" * 300_000):
                await connection.send({"image": image})
                results.append(await connection.recv())
    assert [set(result["image"]) for result in results] == [{97}, {98}, {99}]


async def test_metadata_is_skipped_and_none_is_a_result() -> None:
    def script(server: ScriptedWebSocket) -> None:
        meta = text('{"type": "x-fal-message", "action": "timings", "timing": 0.1}')
        server.send(
            meta + packed(None) + meta + packed({"n": 1}) + text("[2]") + text("plain") + meta
        )
        server.confirm_close()

    async with session_with(script) as connection:
        assert [await connection.recv() for _ in range(4)] == [None, {"n": 1}, [2], "plain"]


@pytest.mark.parametrize("as_text", [True, False])
async def test_app_error_is_raised_after_results(as_text: bool) -> None:
    error = {"type": "x-fal-error", "error": "INTERNAL_ERROR", "reason": "boom", "more": 1}

    def script(server: ScriptedWebSocket) -> None:
        message = text(orjson.dumps(error).decode()) if as_text else packed(error)
        server.send(packed({"n": 1}) + message + close())

    async with session_with(script) as connection:
        assert await connection.recv() == {"n": 1}
        with pytest.raises(RealtimeError) as caught:
            await connection.recv()
        assert (caught.value.error, caught.value.reason) == ("INTERNAL_ERROR", "boom")
        assert caught.value.payload == error
        with pytest.raises(RealtimeDisconnectedError) as closed:
            await connection.recv()
        assert (closed.value.close_code, connection.close_code) == (1000, 1000)


async def test_rejected_token_raises_authentication_error() -> None:
    def script(server: ScriptedWebSocket) -> None:
        server.send(text('{"status": "error", "error": "Unauthorized"}'))
        server.confirm_close()

    async with session_with(script) as connection:
        with pytest.raises(AuthenticationError, match="the token of the session was rejected"):
            await connection.recv()


async def test_recv_raises_session_timeout() -> None:
    async with session_with(lambda server: server.send(text(TIMEOUT))) as connection:
        with pytest.raises(RealtimeError) as caught:
            await connection.recv()
        assert (caught.value.error, caught.value.reason) == (
            "TIMEOUT",
            "no inputs, reconnect when needed!",
        )


@pytest.mark.parametrize("end", [text(TIMEOUT) + close(), close(), close(1001), b"\x88\x00"])
async def test_iteration_ends_with_session(end: bytes) -> None:
    def script(server: ScriptedWebSocket) -> None:
        server.send(packed(1) + packed(2) + end)

    async with session_with(script) as connection:
        assert [result async for result in connection] == [1, 2]
        assert [result async for result in connection] == []


@pytest.mark.parametrize(("end", "code"), [(close(1011, "crash"), 1011), (b"", 1006)])
async def test_iteration_raises_abnormal_close(end: bytes, code: int) -> None:
    def script(server: ScriptedWebSocket) -> None:
        server.send(packed(1) + end)

    async with session_with(script) as connection:
        assert await anext(connection) == 1
        with pytest.raises(RealtimeDisconnectedError) as caught:
            await anext(connection)
        assert (caught.value.close_code, connection.close_code) == (code, code)


async def test_iteration_raises_app_errors() -> None:
    crash = text('{"type": "x-fal-error", "error": "INTERNAL_ERROR"}')
    async with session_with(lambda server: server.send(crash)) as connection:
        with pytest.raises(RealtimeError, match="INTERNAL_ERROR"):
            await anext(connection)


async def test_session_survives_undecodable_message() -> None:
    def script(server: ScriptedWebSocket) -> None:
        server.send(binary(b"\xc1") + packed(1))
        server.confirm_close()

    async with session_with(script) as connection:
        with pytest.raises(InvalidResponseError):
            await connection.recv()
        assert await connection.recv() == 1


async def test_session_survives_invalid_arguments() -> None:
    with websockets_server(echo) as url:
        async with session(url) as connection:
            for wrong in ([1], "text", {"a": object()}):
                with pytest.raises(InvalidRequestError):
                    await connection.send(wrong)
            await connection.send({"n": 1})
            assert await connection.recv() == {"n": 1}


async def test_caller_may_encode_and_decode() -> None:
    with websockets_server(echo) as url:
        async with session(url, encode=orjson.dumps, decode=orjson.loads) as connection:
            await connection.send([1, "two"])
            assert await connection.recv() == [1, "two"]
        async with session(url, encode=str) as connection:
            await connection.send({"n": 1})
            assert await connection.recv() == "{'n': 1}"


async def test_close_ends_iteration_of_receiver() -> None:
    with websockets_server(echo) as url:
        async with session(url) as connection:
            assert repr(connection) == "AsyncRealtimeConnection(close_code=None)"
            assert (connection.close_code, connection.close_reason) == (None, None)
            results: list[object] = []
            first = anyio.Event()

            async def receive() -> None:
                async for result in connection:
                    results.append(result)
                    first.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await connection.send({"n": 1})
                await first.wait()
                await anyio.wait_all_tasks_blocked()
                await connection.close()
            assert results == [{"n": 1}]
            assert (connection.close_code, connection.close_reason) == (1000, "")
            with pytest.raises(RealtimeDisconnectedError):
                await connection.send({})
            with pytest.raises(RealtimeDisconnectedError):
                await connection.recv()


async def test_second_receiver_is_rejected() -> None:
    with websockets_server(echo) as url:
        async with session(url) as connection, anyio.create_task_group() as tasks:
            tasks.start_soon(connection.recv)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(InvalidRequestError, match="another task is receiving"):
                await connection.recv()
            tasks.cancel_scope.cancel()


async def test_connection_failure_is_not_grouped() -> None:
    with pytest.raises(ConnectionFailedError):
        async with session("ws://127.0.0.1:9/"):
            raise AssertionError("there is no session")


async def test_error_in_block_is_not_wrapped() -> None:
    with websockets_server(echo) as url:
        with pytest.raises(ZeroDivisionError) as caught:
            async with session(url) as connection:
                await connection.send({"n": 1 // 0})
        assert caught.value.__context__ is None


# Lost connections


def respond_and_disconnect(connection: RawConnection) -> None:
    """Respond to one input, then disconnect; with a close frame on every second connection."""
    server = ScriptedWebSocket(connection)
    result = {"connection": connection.number, **arguments(server)}
    server.send(packed(result) + (close(1012, "restart") if connection.number % 2 == 0 else b""))


def server_url(peer: RawServer) -> str:
    return f"ws://127.0.0.1:{peer.port}/"


async def test_lost_session_does_not_reconnect_by_default() -> None:
    with RawServer(respond_and_disconnect) as peer:
        async with session(server_url(peer)) as connection:
            await connection.send({"n": 1})
            assert await connection.recv() == {"connection": 1, "n": 1}
            for _ in range(2):
                with pytest.raises(RealtimeDisconnectedError):
                    await connection.recv()
                with pytest.raises(RealtimeDisconnectedError):
                    await connection.send({"n": 2})
    assert len(peer.connections) == 1


async def test_send_reconnects_after_loss() -> None:
    with RawServer(respond_and_disconnect) as peer:
        async with session(server_url(peer), reconnect=True) as connection:
            for number, code in ((1, 1006), (2, 1012), (3, 1006)):
                await connection.send({"n": number})
                assert await connection.recv() == {"connection": number, "n": number}
                with pytest.raises(RealtimeDisconnectedError) as caught:
                    await connection.recv()
                assert (caught.value.close_code, connection.close_code) == (code, code)
    assert len(peer.connections) == 3


async def test_messages_before_loss_come_first() -> None:
    with RawServer(respond_and_disconnect) as peer:
        async with session(server_url(peer), reconnect=True) as connection:
            await connection.send({"n": 1})
            await anyio.to_thread.run_sync(peer.wait_ended)
            # The first sends on a lost connection may succeed; a later one fails.
            while len(peer.connections) == 1:
                await connection.send({"n": 2})
            assert await connection.recv() == {"connection": 1, "n": 1}
            with pytest.raises(RealtimeDisconnectedError):
                await connection.recv()
            assert await connection.recv() == {"connection": 2, "n": 2}


async def test_loss_wakes_up_receiver() -> None:
    go = threading.Event()

    def script(connection: RawConnection) -> None:
        server = ScriptedWebSocket(connection)
        if connection.number == 1:
            assert go.wait(PATIENCE)
        else:
            server.send(packed(arguments(server)))
            server.confirm_close()

    with RawServer(script) as peer:
        async with session(server_url(peer), reconnect=True) as connection:
            errors: list[RealtimeDisconnectedError] = []

            async def receive() -> None:
                try:
                    await connection.recv()
                except RealtimeDisconnectedError as error:
                    errors.append(error)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                go.set()
            assert [error.close_code for error in errors] == [1006]
            await connection.send({"n": 2})
            assert await connection.recv() == {"n": 2}


async def test_concurrent_senders_reconnect_once() -> None:
    def script(connection: RawConnection) -> None:
        server = ScriptedWebSocket(connection)
        if connection.number > 1:
            for _ in range(5):
                server.send(packed(arguments(server)))
            server.confirm_close()

    with RawServer(script) as peer:
        async with session(server_url(peer), reconnect=True) as connection:
            with pytest.raises(RealtimeDisconnectedError):
                await connection.recv()
            async with anyio.create_task_group() as tasks:
                for number in range(5):
                    tasks.start_soon(connection.send, {"n": number})
            results = [await connection.recv() for _ in range(5)]
            assert sorted(result["n"] for result in results) == [0, 1, 2, 3, 4]
    assert len(peer.connections) == 2


async def test_send_reconnects_after_session_timeout() -> None:
    def script(connection: RawConnection) -> None:
        server = ScriptedWebSocket(connection)
        if connection.number == 1:
            server.send(text(TIMEOUT) + close())
        else:
            server.send(packed(arguments(server)))
            server.confirm_close()

    with RawServer(script) as peer:
        async with session(server_url(peer), reconnect=True) as connection:
            assert [result async for result in connection] == []
            await connection.send({"n": 1})
            assert await connection.recv() == {"n": 1}


async def test_send_reconnects_after_expired_token() -> None:
    def script(connection: RawConnection) -> None:
        server = ScriptedWebSocket(connection)
        if connection.number == 1:
            server.send(text('{"status": "error", "error": "Unauthorized"}'))
            server.connection.wait_closed()
        else:
            server.send(packed(arguments(server)))
            server.confirm_close()

    with RawServer(script) as peer:
        async with session(server_url(peer), reconnect=True) as connection:
            with pytest.raises(AuthenticationError):
                await connection.recv()
            await connection.send({"n": 1})
            assert await connection.recv() == {"n": 1}


async def test_closed_session_does_not_reconnect() -> None:
    with websockets_server(echo) as url:
        async with session(url, reconnect=True) as connection:
            await connection.close()
            with pytest.raises(RealtimeDisconnectedError):
                await connection.send({})


async def test_failed_reconnect_is_retried_by_next_send() -> None:
    with RawServer(respond_and_disconnect) as peer:
        attempts = 0

        async def open_socket() -> WebSocket:
            nonlocal attempts
            attempts += 1
            if attempts == 2:
                raise ConnectionFailedError("not now")
            return await connect_websocket(server_url(peer))

        async with open_session(open_socket, reconnect=True) as connection:
            await connection.send({"n": 1})
            assert await connection.recv() == {"connection": 1, "n": 1}
            with pytest.raises(RealtimeDisconnectedError):
                await connection.recv()
            with pytest.raises(ConnectionFailedError, match="not now"):
                await connection.send({"n": 2})
            await connection.send({"n": 3})
            assert await connection.recv() == {"connection": 2, "n": 3}


async def test_cancelled_reconnect_can_be_repeated() -> None:
    with RawServer(respond_and_disconnect) as peer:
        stuck = True

        async def open_socket() -> WebSocket:
            if len(peer.connections) == 1 and stuck:
                await anyio.sleep_forever()
            return await connect_websocket(server_url(peer))

        async with open_session(open_socket, reconnect=True) as connection:
            await connection.send({"n": 1})
            assert await connection.recv() == {"connection": 1, "n": 1}
            with pytest.raises(RealtimeDisconnectedError):
                await connection.recv()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connection.send, {"n": 2})
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            stuck = False
            await connection.send({"n": 3})
            assert await connection.recv() == {"connection": 2, "n": 3}


async def test_close_during_reconnect_closes_both() -> None:
    with RawServer(respond_and_disconnect) as peer:
        go = anyio.Event()

        async def open_socket() -> WebSocket:
            if peer.connections:
                await go.wait()
            return await connect_websocket(server_url(peer))

        async def send(connection: AsyncRealtimeConnection) -> None:
            with pytest.raises(RealtimeDisconnectedError):
                await connection.send({"n": 2})

        async with open_session(open_socket, reconnect=True) as connection:
            await connection.send({"n": 1})
            assert await connection.recv() == {"connection": 1, "n": 1}
            with pytest.raises(RealtimeDisconnectedError):
                await connection.recv()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send, connection)
                await anyio.wait_all_tasks_blocked()
                await connection.close()
                go.set()
        await anyio.to_thread.run_sync(lambda: peer.wait_ended(2))


# WebSocket connections


@asynccontextmanager
async def raw_connection(url: str) -> AsyncGenerator[WebSocketConnection]:
    connection = WebSocketConnection(await connect_to(url)())
    async with closing(connection):
        yield connection


async def test_text_and_bytes_are_echoed() -> None:
    with websockets_server(echo) as url:
        async with raw_connection(url) as connection:
            for message in ("text", b"bytes", '{"type": "x-fal-error"}'):
                await connection.send(message)
                assert await connection.recv() == message
            await connection.close(3001, "done")
            assert (connection.close_code, connection.close_reason) == (3001, "done")
            assert repr(connection) == "WebSocketConnection(close_code=3001)"


async def test_long_messages_survive_the_next_ones() -> None:
    with websockets_server(echo) as url:
        async with raw_connection(url) as connection:
            messages = [b"a" * 300_000, b"b" * 299_000, b"c" * 300_000]
            received: list[str | bytes] = []
            for message in messages:
                await connection.send(message)
                received.append(await connection.recv())
    assert received == messages
    assert all(isinstance(message, bytes) for message in received)


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (1000, StopAsyncIteration),
        (1001, StopAsyncIteration),
        (1011, RealtimeDisconnectedError),
    ],
)
async def test_iteration_ends_with_normal_close(code: int, end: type[Exception]) -> None:
    def script(server: ScriptedWebSocket) -> None:
        server.send(text("one") + binary(b"two") + close(code))

    with RawServer(websocket_script(script)) as peer:
        async with raw_connection(server_url(peer)) as connection:
            assert [await anext(connection), await anext(connection)] == ["one", b"two"]
            with pytest.raises(end):
                await anext(connection)


async def receive_by_deadline(connection: WebSocketConnection, timeout: float) -> list[Any]:
    with anyio.move_on_after(timeout):
        return [await connection.recv()]
    return []


async def receive_by_wait_for(connection: WebSocketConnection, timeout: float) -> list[Any]:
    try:
        return [await asyncio.wait_for(connection.recv(), timeout)]
    except TimeoutError:
        return []


@pytest.mark.parametrize("receive", [receive_by_deadline, receive_by_wait_for])
async def test_cancelled_recv_loses_no_message(
    fal: Emulator, client: AsyncClient, anyio_backend_name: str, receive: Any
) -> None:
    if receive is receive_by_wait_for and anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own")
    numbers = itertools.count()

    @fal.websocket("acme/numbers")
    async def count(socket: Socket) -> None:
        async for _ in socket:
            for number in itertools.islice(numbers, 3):
                await socket.send(str(number))

    got: list[Any] = []
    async with client.ws_connect("acme/numbers") as connection:
        for n in range(100):
            await connection.send("more")
            got += await receive(connection, n * 0.00001)
            got += await receive(connection, 0)
        while len(got) < 300:
            got.append(await connection.recv())

    assert [int(number) for number in got] == list(range(300))
