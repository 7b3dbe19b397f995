"""Realtime sessions and raw sockets, against websockets' own server and against scripted peers."""

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
    speaking,
    text,
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


def to(url: str) -> Callable[[], Any]:
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
    with anyio.fail_after(PATIENCE):
        async with open_session(to(url), **options) as connection:
            yield connection


@asynccontextmanager
async def session_with(
    script: Callable[[ScriptedWebSocket], None], **options: Any
) -> AsyncGenerator[AsyncRealtimeConnection]:
    with RawServer(speaking(script)) as peer:
        async with session(f"ws://127.0.0.1:{peer.port}/", **options) as connection:
            yield connection


def packed(value: object) -> bytes:
    return binary(ormsgpack.packb(value))


def arguments(socketeer: ScriptedWebSocket) -> Any:
    """What the client sent."""
    frame = socketeer.read()
    assert frame.opcode is Opcode.BINARY
    return ormsgpack.unpackb(bytes(frame.data))


async def test_arguments_go_in_and_results_come_out_with_their_bytes() -> None:
    with websockets_server(echo) as url:
        async with session(url) as connection:
            for value in ({"prompt": "a cat", "seed": 1}, {"image": b"\xff\xd8" * 50_000}, {}):
                await connection.send(value)
                assert await connection.recv() == value


async def test_what_the_platform_says_about_the_session_is_skipped_and_none_is_a_result() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        meta = text('{"type": "x-fal-message", "action": "timings", "timing": 0.1}')
        socketeer.line.send(
            meta + packed(None) + meta + packed({"n": 1}) + text("[2]") + text("plain") + meta
        )
        socketeer.agree()

    async with session_with(script) as connection:
        assert [await connection.recv() for _ in range(4)] == [None, {"n": 1}, [2], "plain"]


@pytest.mark.parametrize("as_text", [True, False])
async def test_an_error_of_the_app_is_raised_after_what_came_before(as_text: bool) -> None:
    error = {"type": "x-fal-error", "error": "INTERNAL_ERROR", "reason": "boom", "more": 1}

    def script(socketeer: ScriptedWebSocket) -> None:
        message = text(orjson.dumps(error).decode()) if as_text else packed(error)
        socketeer.line.send(packed({"n": 1}) + message + close())

    async with session_with(script) as connection:
        assert await connection.recv() == {"n": 1}
        with pytest.raises(RealtimeError) as caught:
            await connection.recv()
        assert (caught.value.error, caught.value.reason) == ("INTERNAL_ERROR", "boom")
        assert caught.value.payload == error
        with pytest.raises(RealtimeDisconnectedError) as closed:
            await connection.recv()
        assert (closed.value.close_code, connection.close_code) == (1000, 1000)


async def test_a_token_that_is_refused_in_the_session_is_an_authentication_error() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(text('{"status": "error", "error": "Unauthorized"}'))
        socketeer.agree()

    async with session_with(script) as connection:
        with pytest.raises(AuthenticationError, match="the token of the session was rejected"):
            await connection.recv()


async def test_the_end_of_an_idle_session_is_told_by_recv() -> None:
    async with session_with(lambda socketeer: socketeer.line.send(text(TIMEOUT))) as connection:
        with pytest.raises(RealtimeError) as caught:
            await connection.recv()
        assert (caught.value.error, caught.value.reason) == (
            "TIMEOUT",
            "no inputs, reconnect when needed!",
        )


@pytest.mark.parametrize("end", [text(TIMEOUT) + close(), close(), close(1001), b"\x88\x00"])
async def test_iteration_ends_with_the_session(end: bytes) -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(packed(1) + packed(2) + end)

    async with session_with(script) as connection:
        assert [result async for result in connection] == [1, 2]
        assert [result async for result in connection] == []


@pytest.mark.parametrize(("end", "code"), [(close(1011, "crash"), 1011), (b"", 1006)])
async def test_iteration_raises_when_the_session_does_not_end_well(end: bytes, code: int) -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(packed(1) + end)

    async with session_with(script) as connection:
        assert await anext(connection) == 1
        with pytest.raises(RealtimeDisconnectedError) as caught:
            await anext(connection)
        assert (caught.value.close_code, connection.close_code) == (code, code)


async def test_iteration_raises_the_errors_of_the_app() -> None:
    crash = text('{"type": "x-fal-error", "error": "INTERNAL_ERROR"}')
    async with session_with(lambda socketeer: socketeer.line.send(crash)) as connection:
        with pytest.raises(RealtimeError, match="INTERNAL_ERROR"):
            await anext(connection)


async def test_what_is_not_msgpack_is_an_invalid_response_and_the_session_goes_on() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(binary(b"\xc1") + packed(1))
        socketeer.agree()

    async with session_with(script) as connection:
        with pytest.raises(InvalidResponseError):
            await connection.recv()
        assert await connection.recv() == 1


async def test_arguments_that_cannot_be_sent_are_refused_and_the_session_goes_on() -> None:
    with websockets_server(echo) as url:
        async with session(url) as connection:
            for wrong in ([1], "text", {"a": object()}):
                with pytest.raises(InvalidRequestError):
                    await connection.send(wrong)
            await connection.send({"n": 1})
            assert await connection.recv() == {"n": 1}


async def test_messages_may_be_made_and_read_by_the_caller() -> None:
    with websockets_server(echo) as url:
        async with session(url, encode=orjson.dumps, decode=orjson.loads) as connection:
            await connection.send([1, "two"])
            assert await connection.recv() == [1, "two"]
        async with session(url, encode=str) as connection:
            await connection.send({"n": 1})
            assert await connection.recv() == "{'n': 1}"


async def test_closing_ends_the_session_for_the_receiver_too() -> None:
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


async def test_a_second_receiver_is_refused() -> None:
    with websockets_server(echo) as url:
        async with session(url) as connection, anyio.create_task_group() as tasks:
            tasks.start_soon(connection.recv)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(InvalidRequestError, match="another task is receiving"):
                await connection.recv()
            tasks.cancel_scope.cancel()


async def test_a_connection_that_cannot_be_opened_is_a_bare_error() -> None:
    with pytest.raises(ConnectionFailedError):
        async with session("ws://127.0.0.1:9/"):
            raise AssertionError("there is no session")


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with websockets_server(echo) as url:
        with pytest.raises(ZeroDivisionError) as caught:
            async with session(url) as connection:
                await connection.send({"n": 1 // 0})
        assert caught.value.__context__ is None


# Connections that are lost.


def drop(line: RawConnection) -> None:
    """Answer one input and go, on every connection, without a word on the odd ones."""
    socketeer = ScriptedWebSocket(line)
    answer = {"connection": line.number, **arguments(socketeer)}
    socketeer.line.send(packed(answer) + (close(1012, "restart") if line.number % 2 == 0 else b""))


def url_of(peer: RawServer) -> str:
    return f"ws://127.0.0.1:{peer.port}/"


async def test_a_session_that_was_lost_stays_so_unless_asked_otherwise() -> None:
    with RawServer(drop) as peer:
        async with session(url_of(peer)) as connection:
            await connection.send({"n": 1})
            assert await connection.recv() == {"connection": 1, "n": 1}
            for _ in range(2):
                with pytest.raises(RealtimeDisconnectedError):
                    await connection.recv()
                with pytest.raises(RealtimeDisconnectedError):
                    await connection.send({"n": 2})
    assert len(peer.lines) == 1


async def test_the_next_send_opens_a_new_connection_and_the_receiver_hears_of_the_loss() -> None:
    with RawServer(drop) as peer:
        async with session(url_of(peer), reconnect=True) as connection:
            for number, code in ((1, 1006), (2, 1012), (3, 1006)):
                await connection.send({"n": number})
                assert await connection.recv() == {"connection": number, "n": number}
                with pytest.raises(RealtimeDisconnectedError) as caught:
                    await connection.recv()
                assert (caught.value.close_code, connection.close_code) == (code, code)
    assert len(peer.lines) == 3


async def test_what_was_received_before_the_loss_and_the_loss_itself_come_first() -> None:
    with RawServer(drop) as peer:
        async with session(url_of(peer), reconnect=True) as connection:
            await connection.send({"n": 1})
            await anyio.to_thread.run_sync(peer.wait_ended)
            # Whether a send into the void fails is for the network to say; one of many does.
            while len(peer.lines) == 1:
                await connection.send({"n": 2})
            assert await connection.recv() == {"connection": 1, "n": 1}
            with pytest.raises(RealtimeDisconnectedError):
                await connection.recv()
            assert await connection.recv() == {"connection": 2, "n": 2}


async def test_a_receiver_that_waits_hears_of_the_loss() -> None:
    go = threading.Event()

    def script(line: RawConnection) -> None:
        socketeer = ScriptedWebSocket(line)
        if line.number == 1:
            assert go.wait(PATIENCE)
        else:
            socketeer.line.send(packed(arguments(socketeer)))
            socketeer.agree()

    with RawServer(script) as peer:
        async with session(url_of(peer), reconnect=True) as connection:
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


async def test_senders_that_meet_a_lost_connection_open_one_together() -> None:
    def script(line: RawConnection) -> None:
        socketeer = ScriptedWebSocket(line)
        if line.number > 1:
            for _ in range(5):
                socketeer.line.send(packed(arguments(socketeer)))
            socketeer.agree()

    with RawServer(script) as peer:
        async with session(url_of(peer), reconnect=True) as connection:
            with pytest.raises(RealtimeDisconnectedError):
                await connection.recv()
            async with anyio.create_task_group() as tasks:
                for number in range(5):
                    tasks.start_soon(connection.send, {"n": number})
            results = [await connection.recv() for _ in range(5)]
            assert sorted(result["n"] for result in results) == [0, 1, 2, 3, 4]
    assert len(peer.lines) == 2


async def test_a_session_that_timed_out_is_opened_again_by_the_next_send() -> None:
    def script(line: RawConnection) -> None:
        socketeer = ScriptedWebSocket(line)
        if line.number == 1:
            socketeer.line.send(text(TIMEOUT) + close())
        else:
            socketeer.line.send(packed(arguments(socketeer)))
            socketeer.agree()

    with RawServer(script) as peer:
        async with session(url_of(peer), reconnect=True) as connection:
            assert [result async for result in connection] == []
            await connection.send({"n": 1})
            assert await connection.recv() == {"n": 1}


async def test_a_session_whose_token_expired_is_opened_again_by_the_next_send() -> None:
    def script(line: RawConnection) -> None:
        socketeer = ScriptedWebSocket(line)
        if line.number == 1:
            socketeer.line.send(text('{"status": "error", "error": "Unauthorized"}'))
            socketeer.line.wait_closed()
        else:
            socketeer.line.send(packed(arguments(socketeer)))
            socketeer.agree()

    with RawServer(script) as peer:
        async with session(url_of(peer), reconnect=True) as connection:
            with pytest.raises(AuthenticationError):
                await connection.recv()
            await connection.send({"n": 1})
            assert await connection.recv() == {"n": 1}


async def test_a_session_that_was_closed_on_purpose_is_not_opened_again() -> None:
    with websockets_server(echo) as url:
        async with session(url, reconnect=True) as connection:
            await connection.close()
            with pytest.raises(RealtimeDisconnectedError):
                await connection.send({})


async def test_a_new_connection_that_cannot_be_opened_is_tried_again_by_the_next_send() -> None:
    with RawServer(drop) as peer:
        attempts = 0

        async def open_socket() -> WebSocket:
            nonlocal attempts
            attempts += 1
            if attempts == 2:
                raise ConnectionFailedError("not now")
            return await connect_websocket(url_of(peer))

        with anyio.fail_after(PATIENCE):
            async with open_session(open_socket, reconnect=True) as connection:
                await connection.send({"n": 1})
                assert await connection.recv() == {"connection": 1, "n": 1}
                with pytest.raises(RealtimeDisconnectedError):
                    await connection.recv()
                with pytest.raises(ConnectionFailedError, match="not now"):
                    await connection.send({"n": 2})
                await connection.send({"n": 3})
                assert await connection.recv() == {"connection": 2, "n": 3}


async def test_opening_again_that_is_cancelled_leaves_a_session_that_can_be_opened_again() -> None:
    with RawServer(drop) as peer:
        stuck = True

        async def open_socket() -> WebSocket:
            if len(peer.lines) == 1 and stuck:
                await anyio.sleep_forever()
            return await connect_websocket(url_of(peer))

        with anyio.fail_after(PATIENCE):
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


async def test_closing_while_a_send_opens_a_new_connection_leaves_none_open() -> None:
    with RawServer(drop) as peer:
        go = anyio.Event()

        async def open_socket() -> WebSocket:
            if peer.lines:
                await go.wait()
            return await connect_websocket(url_of(peer))

        async def send(connection: AsyncRealtimeConnection) -> None:
            with pytest.raises(RealtimeDisconnectedError):
                await connection.send({"n": 2})

        with anyio.fail_after(PATIENCE):
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


# Raw sockets.


@asynccontextmanager
async def raw(url: str) -> AsyncGenerator[WebSocketConnection]:
    with anyio.fail_after(PATIENCE):
        connection = WebSocketConnection(await to(url)())
        async with closing(connection):
            yield connection


async def test_text_and_bytes_go_both_ways() -> None:
    with websockets_server(echo) as url:
        async with raw(url) as connection:
            for message in ("text", b"bytes", '{"type": "x-fal-error"}'):
                await connection.send(message)
                assert await connection.recv() == message
            await connection.close(3001, "done")
            assert (connection.close_code, connection.close_reason) == (3001, "done")
            assert repr(connection) == "WebSocketConnection(close_code=3001)"


@pytest.mark.parametrize(
    ("code", "end"),
    [
        (1000, StopAsyncIteration),
        (1001, StopAsyncIteration),
        (1011, RealtimeDisconnectedError),
    ],
)
async def test_iteration_over_a_raw_socket_ends_with_a_good_close(
    code: int, end: type[Exception]
) -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(text("one") + binary(b"two") + close(code))

    with RawServer(speaking(script)) as peer:
        async with raw(url_of(peer)) as connection:
            assert [await anext(connection), await anext(connection)] == ["one", b"two"]
            with pytest.raises(end):
                await anext(connection)


async def receive_by_deadline(connection: WebSocketConnection, patience: float) -> list[Any]:
    with anyio.move_on_after(patience):
        return [await connection.recv()]
    return []


async def receive_by_wait_for(connection: WebSocketConnection, patience: float) -> list[Any]:
    try:
        return [await asyncio.wait_for(connection.recv(), patience)]
    except TimeoutError:
        return []


@pytest.mark.parametrize("receive", [receive_by_deadline, receive_by_wait_for])
async def test_a_receive_that_is_cancelled_at_any_moment_loses_no_message(
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
    with anyio.fail_after(20):
        async with client.ws_connect("acme/numbers") as connection:
            for n in range(100):
                await connection.send("more")
                got += await receive(connection, n * 0.00001)
                got += await receive(connection, 0)
            while len(got) < 300:
                got.append(await connection.recv())

    assert [int(number) for number in got] == list(range(300))
