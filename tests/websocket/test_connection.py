"""WebSocket connection: messages, limits, keepalive, close and cancellation."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import threading
import tracemalloc
from contextlib import asynccontextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from fal_async._net.connect import connect
from fal_async._net.sockets import CHUNK, SocketStream
from fal_async._websocket import connection as module
from fal_async._websocket.buffers import HIGH_WATER, MESSAGE_OVERHEAD, RECEIVE_LIMIT
from fal_async._websocket.connection import READ_SIZE, WebSocket
from fal_async._websocket.handshake import connect_websocket
from fal_async.errors import (
    FalClientError,
    InvalidRequestError,
    InvalidResponseError,
    RealtimeDisconnectedError,
)
from tests.support.cancel_points import cancel_everywhere
from tests.support.raw_server import PATIENCE, RawConnection, RawServer
from tests.support.websocket_server import (
    ScriptedWebSocket,
    binary,
    close,
    closing,
    continuation,
    echo,
    frame,
    text,
    websocket_script,
    websockets_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import httpx
    import trustme
    from websockets.sync.server import ServerConnection

SIZES = [0, 1, 125, 126, 65535, 65536, 300_000]


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten intervals; lengthen the close timeout, on which no test depends."""
    monkeypatch.setattr(module, "IDLE_READ_INTERVAL", 0.001)
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 10 * PATIENCE)


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncGenerator[WebSocket]:
    websocket = await connect_websocket(url, **options)  # type: ignore[arg-type]  # passed on
    async with closing(websocket):
        yield websocket


def address(peer: RawServer) -> str:
    return peer.url.replace("http", "ws", 1)


async def ended(peer: RawServer) -> None:
    await anyio.to_thread.run_sync(peer.wait_ended)


async def test_messages_of_any_size_are_echoed() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            for size in SIZES:
                for message in ("é" * size, b"\xff" * size):
                    await websocket.send(message)
                    assert await websocket.recv() == message


async def test_send_accepts_any_buffer() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            for message in (
                bytearray(b"image"),
                memoryview(b"an image")[3:],
                memoryview(b"i_m_a_g_e_")[::2],
            ):
                await websocket.send(message)
                assert await websocket.recv() == b"image"
            for size in (8, 80_000):  # items of eight bytes
                numbers = memoryview(bytes(range(8)) * size).cast("Q")
                await websocket.send(numbers)
                assert await websocket.recv() == numbers.tobytes()


async def test_long_message_is_copied_by_send() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            message = bytearray(b"image" * 1_000_000)
            await websocket.send(message)
            message[:] = bytes(len(message))
            assert await websocket.recv() == b"image" * 1_000_000


SCRIPT = (
    text("one")
    + frame(Opcode.PING, b"?")
    + binary(b"\x00" * 130)
    + text("fr", fin=False)
    + frame(Opcode.PING, b"!")
    + continuation("ag—".encode()[:3])
    + frame(Opcode.PONG, b"")
    + continuation("ag—".encode()[3:], fin=True)
    + binary(b"", fin=False)
    + continuation(b"end", fin=True)
)
MESSAGES = ["one", b"\x00" * 130, "frag—", b"end"]


def connect_in_slices(size: int) -> Callable[[httpx.URL], Awaitable[SocketStream]]:
    """Make a function that connects so that each read returns at most ``size`` bytes."""

    class SlicingStream(SocketStream):
        left = size

        def receive_nowait(self, max_bytes: int = size) -> bytes | None:
            received = super().receive_nowait(min(max_bytes, self.left))
            if received:
                self.left = self.left - len(received) or size
            return received

        def receive_into_nowait(self, room: memoryview) -> int | None:
            received = super().receive_into_nowait(room[: self.left])
            if received:
                self.left = self.left - received or size
            return received

    async def connect_slicing(url: httpx.URL) -> SocketStream:
        return SlicingStream((await connect(url.host, url.port or 80))._socket)

    return connect_slicing


@pytest.mark.parametrize("size", [1, 2, 7, len(SCRIPT) - 1, len(SCRIPT) + 1])
async def test_frames_may_be_split_anywhere(size: int) -> None:
    # Slices that are one byte longer than the script split it at every offset in turn.
    repetitions = len(SCRIPT) if size > 7 else 3

    def script(server: ScriptedWebSocket) -> None:
        server.send(SCRIPT * repetitions)
        for _ in range(repetitions):
            server.expect(Opcode.PONG, b"?")
            server.expect(Opcode.PONG, b"!")
        server.confirm_close()

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer), connect=connect_in_slices(size)) as websocket:
            for _ in range(repetitions):
                assert [await websocket.recv() for _ in MESSAGES] == MESSAGES


async def test_frames_may_follow_handshake_response() -> None:
    def script(connection: RawConnection) -> None:
        ScriptedWebSocket(connection, early=SCRIPT).confirm_close()

    with RawServer(script) as peer:
        async with opened(address(peer)) as websocket:
            assert [await websocket.recv() for _ in MESSAGES] == MESSAGES


async def test_compression_is_off_by_default() -> None:
    offers: list[str | None] = []

    def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        offers.append(connection.request.headers.get("Sec-WebSocket-Extensions"))
        echo(connection)

    with websockets_server(handler) as url:
        for options in ({}, {"compression": True}):
            async with opened(url, **options) as websocket:
                for message in ("again and " * 1000, b"again and " * 1000, ""):
                    await websocket.send(message)
                    assert await websocket.recv() == message
    assert offers[0] is None
    assert offers[1] is not None
    assert "permessage-deflate" in offers[1]


async def test_messages_are_sent_over_tls(authority: trustme.CA) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    async def connect_with_tls(url: httpx.URL) -> SocketStream:
        return await connect("localhost", url.port or 443, tls=client)

    with websockets_server(echo, ssl=server) as url:
        async with opened(url.replace("ws", "wss", 1), connect=connect_with_tls) as websocket:
            for message in ("text", b"x" * 3_000_000):
                await websocket.send(message)
                assert await websocket.recv() == message


async def test_pongs_are_sent_while_no_task_receives() -> None:
    def script(server: ScriptedWebSocket) -> None:
        for number in range(3):
            server.send(frame(Opcode.PING, b"%d" % number))
            server.expect(Opcode.PONG, b"%d" % number)
        server.send(text("done"))
        received.set()
        server.confirm_close()

    received = threading.Event()
    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket:
            await anyio.to_thread.run_sync(received.wait)
            assert await websocket.recv() == "done"


async def test_unread_pongs_take_limited_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_PONG_BACKLOG", 10_000)

    def script(server: ScriptedWebSocket) -> None:
        server.send(frame(Opcode.PING, b"x" * 125) * 8000)
        server.send(text("that was it"))
        assert listen.wait(PATIENCE)
        number = 0
        while bytes(server.read().data) != b"last":
            number += 1
            if number % 100 == 0:
                server.send(frame(Opcode.PING, b"last"))

    async def connect_with_small_buffer(url: httpx.URL) -> SocketStream:
        stream = await connect(url.host, url.port or 80)
        stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return stream

    listen = threading.Event()
    with RawServer(websocket_script(script), receive_buffer=4096) as peer:
        async with opened(address(peer), connect=connect_with_small_buffer) as websocket:
            assert await websocket.recv() == "that was it"
            pongs = 10_000 + 2 * READ_SIZE * 131 // 127  # a pong has a mask of 4 bytes
            assert 0 < websocket._send_buffer.size <= pongs
            listen.set()
            await ended(peer)


async def test_pongs_keep_idle_connection_open() -> None:
    def script(server: ScriptedWebSocket) -> None:
        for _ in range(3):
            server.expect(Opcode.PING, b"")
            server.send(frame(Opcode.PONG, b""))
        server.send(text("still here"))
        server.confirm_close()

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer), ping_interval=0.01, ping_timeout=5.0) as websocket:
            assert await websocket.recv() == "still here"


async def test_ping_timeout_closes_connection() -> None:
    with RawServer(websocket_script(lambda server: server.connection.wait_closed())) as peer:
        async with opened(address(peer), ping_interval=0.01, ping_timeout=0.01) as websocket:
            with pytest.raises(RealtimeDisconnectedError) as caught:
                await websocket.recv()
            assert (caught.value.close_code, websocket.close_code) == (1006, 1006)
            assert (
                caught.value.close_reason
                == "the server did not respond to a ping within 0.01 seconds"
            )
            with pytest.raises(RealtimeDisconnectedError):
                await websocket.send("anyone?")


async def test_ping_timeout_applies_without_receiver() -> None:
    with RawServer(websocket_script(lambda server: server.connection.wait_closed())) as peer:
        async with opened(address(peer), ping_interval=0.01, ping_timeout=0.01) as websocket:
            await ended(peer)
            with pytest.raises(RealtimeDisconnectedError):
                await websocket.send("anyone?")


@pytest.mark.parametrize(
    "frames", [[binary(b"x" * 101)], [binary(b"x" * 60, fin=False), continuation(b"x" * 60)]]
)
async def test_too_long_message_ends_connection(frames: list[bytes]) -> None:
    codes: list[int] = []

    def script(server: ScriptedWebSocket) -> None:
        server.send(binary(b"x" * 100), *frames)
        codes.append(server.confirm_close())

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer), max_message_size=100) as websocket:
            assert await websocket.recv() == b"x" * 100
            with pytest.raises(InvalidResponseError, match="more than 100 bytes"):
                await websocket.recv()
            with pytest.raises(InvalidResponseError, match="more than 100 bytes"):
                await websocket.send("more?")
            assert websocket.close_code == 1009
        await ended(peer)
    assert codes == [1009]


async def test_too_long_message_is_not_inflated() -> None:
    inflated = bytes(20_000_000)

    def handler(connection: ServerConnection) -> None:
        connection.send(b"x" * 1000)
        connection.recv()
        connection.send(inflated)
        with contextlib.suppress(ConnectionClosed):
            connection.recv()

    with websockets_server(handler, compression="deflate") as url:
        async with opened(url, max_message_size=1000, compression=True) as websocket:
            assert await websocket.recv() == b"x" * 1000
            await websocket.send("go on")
            tracemalloc.start()
            try:
                with pytest.raises(InvalidResponseError, match="more than 1000 bytes"):
                    await websocket.recv()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert websocket.close_code == 1009
    assert peak < len(inflated) / 4


VIOLATIONS = {
    "a masked frame": (b"\x81\x81\x00\x00\x00\x00a", 1002),
    "reserved bits": (b"\xf1\x01a", 1002),
    "an unknown opcode": (b"\x83\x00", 1002),
    "a continuation of nothing": (b"\x80\x01a", 1002),
    "a message within a fragmented one": (text("a", fin=False) + text("b"), 1002),
    "a long control frame": (b"\x89\x7e\x00\x7e" + b"x" * 126, 1002),
    "a fragmented control frame": (b"\x09\x00", 1002),
    "a close without a whole code": (b"\x88\x01\x03", 1002),
    "a close whose reason is not UTF-8": (b"\x88\x03\x03\xe8\xff", 1007),
    "a close with a code that may not be sent": (b"\x88\x02\x03\xee", 1002),
    "text that is not UTF-8": (b"\x81\x01\xff", 1007),
    "fragmented text that is not UTF-8": (b"\x01\x01\xc3" + b"\x80\x01a", 1007),
    "a compressed frame without compression": (b"\xc1\x01a", 1002),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_protocol_violation_ends_connection(name: str) -> None:
    frames, code = VIOLATIONS[name]
    codes: list[int] = []

    def script(server: ScriptedWebSocket) -> None:
        server.send(text("fine") + frames)
        codes.append(server.close_code())

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket:
            assert await websocket.recv() == "fine"
            for _ in range(2):
                with pytest.raises(
                    InvalidResponseError, match="the server violated the WebSocket protocol: "
                ):
                    await websocket.recv()
            assert websocket.close_code == code
        await ended(peer)
    assert codes == [code]


async def test_full_receive_buffer_stops_reading() -> None:
    messages = [bytes([number]) * 200_000 for number in range(60)]

    def script(server: ScriptedWebSocket) -> None:
        server.send(*map(binary, messages))
        server.confirm_close()

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket:
            while websocket._receive_buffer.size < RECEIVE_LIMIT:
                await anyio.lowlevel.checkpoint()
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            assert websocket._receive_buffer.size < RECEIVE_LIMIT + 200_000
            assert [await websocket.recv() for _ in messages] == messages


async def test_empty_messages_fill_receive_buffer() -> None:
    def script(server: ScriptedWebSocket) -> None:
        server.send(text("", fin=False) + continuation(b"") * 1000 + continuation(b"", fin=True))
        server.send(binary(b"") * 18_000)
        server.confirm_close()

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket:
            while websocket._receive_buffer.size < RECEIVE_LIMIT:
                await anyio.lowlevel.checkpoint()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert len(websocket._receive_buffer) <= RECEIVE_LIMIT // MESSAGE_OVERHEAD + CHUNK // 2
            assert await websocket.recv() == ""
            for _ in range(18_000):
                assert await websocket.recv() == b""


async def test_full_send_buffer_stops_senders() -> None:
    read = threading.Event()
    received: list[bytes] = []

    def script(server: ScriptedWebSocket) -> None:
        assert read.wait(PATIENCE)
        while (message := server.read()).opcode is Opcode.BINARY:
            received.append(bytes(message.data))
        server.send(close())

    sent: list[bytes] = []

    async def send(websocket: WebSocket, name: bytes) -> None:
        while True:
            await websocket.send(name * 1000)
            sent.append(name * 1000)

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket:
            async with anyio.create_task_group() as tasks:
                for name in (b"a", b"b", b"c"):
                    tasks.start_soon(send, websocket, name)
                while websocket._send_buffer.size <= HIGH_WATER:
                    await anyio.lowlevel.checkpoint()
                for _ in range(100):
                    await anyio.lowlevel.checkpoint()
                assert websocket._send_buffer.size < HIGH_WATER + 1010 * 3
                tasks.cancel_scope.cancel()
            read.set()
            await websocket.send(b"last")
        await ended(peer)
    # A send that was cancelled while it waited sent nothing.
    assert sorted(received[:-1]) == sorted(sent)
    assert received[-1] == b"last"


async def test_concurrent_messages_do_not_mix() -> None:
    messages = [bytes([number]) * (number * 300) for number in range(100)]
    with websockets_server(echo) as url:
        async with opened(url) as websocket, anyio.create_task_group() as tasks:
            for message in messages:
                tasks.start_soon(websocket.send, message)
            received = [await websocket.recv() for _ in messages]
    assert sorted(received, key=len) == messages


async def test_second_receiver_is_rejected() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket, anyio.create_task_group() as tasks:
            received: list[object] = []

            async def receive() -> None:
                received.append(await websocket.recv())

            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(InvalidRequestError, match="another task is receiving"):
                await websocket.recv()
            await websocket.send("for the first")
    assert received == ["for the first"]


async def test_messages_in_a_row_are_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "IDLE_READ_INTERVAL", 60.0)  # a read enables write-through
    streams: list[CountingStream] = []

    class CountingStream(SocketStream):
        writes = 0

        def send_nowait(self, item: bytes | memoryview) -> int:
            self.writes += 1
            return super().send_nowait(item)

    async def connect_and_count(url: httpx.URL) -> SocketStream:
        stream = await connect(url.host, url.port or 80)
        streams.append(CountingStream(stream._socket))
        return streams[0]

    with websockets_server(echo) as url:
        async with opened(url, connect=connect_and_count) as websocket:
            streams[0].writes = 0
            for number in range(100):
                await websocket.send(f"message {number}")
            for number in range(100):
                assert await websocket.recv() == f"message {number}"
            assert streams[0].writes == 2
            for writes in (3, 4, 5):
                await websocket.send("a message that is waited for")
                assert streams[0].writes == writes
                await websocket.recv()
            for writes in (6, 6, 8):
                # Without a read in between, every second message waits for the event loop.
                await websocket.send("a message of many")
                assert streams[0].writes == writes
                await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("message", [None, 1, {"prompt": "a cat"}, "\ud800"])
async def test_invalid_message_is_rejected(
    message: object,
) -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            with pytest.raises(InvalidRequestError):
                await websocket.send(message)  # type: ignore[arg-type]  # invalid on purpose
            await websocket.send("a message")
            assert await websocket.recv() == "a message"


async def test_close_waits_for_close_frame() -> None:
    closes: SimpleQueue[tuple[int | None, str | None]] = SimpleQueue()

    def handler(connection: ServerConnection) -> None:
        echo(connection)
        closes.put((connection.close_code, connection.close_reason))

    with websockets_server(handler) as url:
        async with opened(url) as websocket:
            assert (websocket.is_open, websocket.close_code, websocket.close_reason) == (
                True,
                None,
                None,
            )
            assert repr(websocket) == "<WebSocket open>"
            await websocket.close(1001, "going")
            assert (websocket.close_code, websocket.close_reason) == (1001, "going")
            assert repr(websocket) == "<WebSocket closed with 1001>"
            await websocket.close()
            for call in (websocket.recv(), websocket.send("too late")):
                with pytest.raises(RealtimeDisconnectedError) as caught:
                    await call
                assert (caught.value.close_code, caught.value.close_reason) == (1001, "going")
    assert closes.get(timeout=PATIENCE) == (1001, "going")


UNSENDABLE = [
    (1, ""),
    (1006, ""),
    (1000, "x" * 124),
    (3000, "\ud800"),
    ("1000", ""),
    (1000, None),
    (1000, b"bye"),
]


@pytest.mark.parametrize(("code", "reason"), UNSENDABLE)
async def test_invalid_close_is_rejected(code: Any, reason: Any) -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            with pytest.raises(InvalidRequestError, match="close"):
                await websocket.close(code, reason)
            await websocket.send("still open")
            assert await websocket.recv() == "still open"


async def test_close_wakes_up_receiver() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            caught: list[RealtimeDisconnectedError] = []

            async def receive() -> None:
                try:
                    await websocket.recv()
                except RealtimeDisconnectedError as error:
                    caught.append(error)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                await websocket.close()
            assert [error.close_code for error in caught] == [1000]


async def test_messages_before_close_are_delivered() -> None:
    codes: list[int] = []

    def script(server: ScriptedWebSocket) -> None:
        server.send(text("one") + text("two") + close(4001, "enough") + text("not received"))
        codes.append(server.close_code())

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket:
            await ended(peer)
            assert [await websocket.recv(), await websocket.recv()] == ["one", "two"]
            with pytest.raises(RealtimeDisconnectedError) as caught:
                await websocket.recv()
            assert (caught.value.close_code, caught.value.close_reason) == (4001, "enough")
            with pytest.raises(RealtimeDisconnectedError, match="code 4001"):
                await websocket.send("too late")
    assert codes == [4001]


async def test_close_without_code_has_code_1005() -> None:
    with RawServer(websocket_script(lambda server: server.send(b"\x88\x00"))) as peer:
        async with opened(address(peer)) as websocket:
            with pytest.raises(RealtimeDisconnectedError) as caught:
                await websocket.recv()
    assert (caught.value.close_code, caught.value.close_reason) == (1005, "")


async def test_close_timeout_ends_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.01)
    with RawServer(websocket_script(lambda server: server.connection.wait_closed())) as peer:
        async with opened(address(peer)) as websocket:
            await websocket.close()
            assert (websocket.close_code, websocket.close_reason) == (
                1006,
                "the server did not respond to the close frame",
            )


@pytest.mark.parametrize("late", [text("late"), frame(Opcode.TEXT, b"\xff")])
async def test_messages_after_close_are_discarded(late: bytes) -> None:
    def script(server: ScriptedWebSocket) -> None:
        code = server.close_code()
        server.send(late, close(code))

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket:
            await websocket.close()
            assert websocket.close_code == 1000
            with pytest.raises(RealtimeDisconnectedError):
                await websocket.recv()


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_lost_connection_has_code_1006(leave: str) -> None:
    def script(server: ScriptedWebSocket) -> None:
        server.send(text("one") + binary(b"half of a message")[:5])
        server.expect(Opcode.TEXT, b"go")
        getattr(server.connection, leave)()

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket:
            assert await websocket.recv() == "one"
            await websocket.send("go")
            for _ in range(2):
                with pytest.raises(RealtimeDisconnectedError) as caught:
                    await websocket.recv()
                assert caught.value.close_code == 1006
                assert caught.value.close_reason
            with pytest.raises(RealtimeDisconnectedError):
                await websocket.send("too late")


async def test_send_raises_reason_of_server_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_READ_INTERVAL", 60.0)

    def script(server: ScriptedWebSocket) -> None:
        server.send(text("one") + close(1011, "the app crashed"))

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket:
            await ended(peer)

            async def send_until_it_fails() -> None:
                while True:
                    await websocket.send(b"x" * 1000)
                    await anyio.lowlevel.checkpoint()

            with pytest.raises(RealtimeDisconnectedError) as caught:
                await send_until_it_fails()
            assert (caught.value.close_code, caught.value.close_reason) == (1011, "the app crashed")
            assert await websocket.recv() == "one"


async def test_lost_connection_wakes_up_senders() -> None:
    full = threading.Event()

    def script(server: ScriptedWebSocket) -> None:
        assert full.wait(PATIENCE)
        server.connection.reset()

    errors: list[FalClientError] = []

    async def send(websocket: WebSocket) -> None:
        try:
            while True:
                await websocket.send(b"x" * 10_000)
        except RealtimeDisconnectedError as error:
            errors.append(error)

    with RawServer(websocket_script(script)) as peer:
        async with opened(address(peer)) as websocket, anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(send, websocket)
            while websocket._send_buffer.size <= HIGH_WATER:
                await anyio.lowlevel.checkpoint()
            full.set()
    assert len(errors) == 3


async def test_connection_survives_cancellation_anywhere() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:

            async def round_trip() -> None:
                await websocket.send(b"x" * 200_000)
                while await websocket.recv() != b"x" * 200_000:
                    pass

            cancelled = 0
            async for _ in cancel_everywhere(round_trip):
                cancelled += 1
                await websocket.send("mark")
                while await websocket.recv() != "mark":
                    pass
            assert cancelled > 0
            assert websocket.is_open


async def test_cancelled_calls_lose_no_message() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            await websocket.send("one")
            while not websocket._receive_buffer:
                await anyio.lowlevel.checkpoint()
            with anyio.CancelScope() as scope:
                scope.cancel()
                await websocket.send("not this")
            assert scope.cancelled_caught
            with anyio.CancelScope() as scope:
                scope.cancel()
                await websocket.recv()
            assert scope.cancelled_caught
            await websocket.send("two")
            assert [await websocket.recv(), await websocket.recv()] == ["one", "two"]


async def test_shielded_calls_continue_within_cancelled_scope() -> None:
    received: list[object] = []
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            for message in ("one", "two"):
                await websocket.send(message)
            while len(websocket._receive_buffer) < 2:
                await anyio.lowlevel.checkpoint()
            with anyio.CancelScope() as scope:
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    received.append(await websocket.recv())
                    await websocket.send("three")
                with anyio.CancelScope():
                    received.append(await websocket.recv())
            assert scope.cancelled_caught
            received += [await websocket.recv(), await websocket.recv()]
    assert received == ["one", "two", "three"]


async def test_background_tasks_end_with_connection() -> None:
    with RawServer(websocket_script(lambda server: server.send(close()))) as peer:
        websocket = await connect_websocket(address(peer))
        with pytest.raises(RealtimeDisconnectedError):
            await websocket.recv()
        await websocket.close()
        assert all(task.done for task in websocket._background)


async def test_cancelled_connecting_closes_socket(
    recwarn: pytest.WarningsRecorder,
) -> None:
    streams: list[SocketStream] = []

    async def connect_and_record(url: httpx.URL) -> SocketStream:
        streams.append(await connect(url.host, url.port or 80))
        return streams[-1]

    with websockets_server(echo) as url:

        async def use() -> None:
            websocket = await connect_websocket(url, connect=connect_and_record)
            async with closing(websocket):
                await websocket.send("hello")
                await websocket.recv()

        async for _ in cancel_everywhere(use):
            pass
    assert len(streams) > 3
    assert all(stream._socket.fileno() == -1 for stream in streams)
    streams.clear()
    gc.collect()
    assert not recwarn.list


async def test_cancelled_close_closes_at_once() -> None:
    with RawServer(websocket_script(lambda server: server.connection.wait_closed())) as peer:
        async with opened(address(peer)) as websocket:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await websocket.close()
            assert websocket.close_code == 1006
            await ended(peer)


async def test_error_in_block_closes_connection() -> None:
    class OwnError(Exception):
        pass

    closes: SimpleQueue[int | None] = SimpleQueue()

    def handler(connection: ServerConnection) -> None:
        echo(connection)
        closes.put(connection.close_code)

    with websockets_server(handler) as url:
        with pytest.raises(OwnError) as caught:
            async with opened(url):
                raise OwnError
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    assert closes.get(timeout=PATIENCE) == 1000


async def test_cancelled_block_sends_close_frame() -> None:
    answer = threading.Event()

    def script(server: ScriptedWebSocket) -> None:
        code = server.close_code()
        assert answer.wait(PATIENCE)
        server.send(close(code))

    async def confirm_after_cancellation(websocket: WebSocket) -> None:
        while websocket._protocol.close_sent is None:
            await anyio.lowlevel.checkpoint()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        answer.set()

    with RawServer(websocket_script(script)) as peer:
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with opened(address(peer)) as websocket:
                    tasks.start_soon(confirm_after_cancellation, websocket)
                    scope.cancel()
                    await websocket.recv()
    assert scope.cancelled_caught
    assert websocket.close_code == 1000


async def test_close_sends_unsent_messages_first() -> None:
    received: SimpleQueue[str | bytes | int | None] = SimpleQueue()

    def handler(connection: ServerConnection) -> None:
        for message in connection:
            received.put(message)
        received.put(connection.close_code)

    async def send_and_cancel(websocket: WebSocket) -> None:
        await websocket.send("a last word")
        scope.cancel()

    with websockets_server(handler) as url:
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with opened(url) as websocket:
                    tasks.start_soon(send_and_cancel, websocket)
                    await websocket.recv()
    assert websocket.close_code == 1000
    assert [received.get(timeout=PATIENCE) for _ in range(2)] == ["a last word", 1000]
