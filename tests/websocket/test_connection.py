"""A WebSocket connection, against websockets' own server and against scripted peers."""

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
    echo,
    frame,
    more,
    speaking,
    text,
    websockets_server,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import httpx
    import trustme
    from websockets.sync.server import ServerConnection

SIZES = [0, 1, 125, 126, 65535, 65536, 300_000]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens after some time happens soon."""
    monkeypatch.setattr(module, "IDLE_READ_INTERVAL", 0.001)
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 10 * PATIENCE)  # no test is to wait for it


@asynccontextmanager
async def opened(url: str, **options: object) -> AsyncGenerator[WebSocket]:
    with anyio.fail_after(PATIENCE):
        websocket = await connect_websocket(url, **options)  # type: ignore[arg-type]  # passed on
        async with closing(websocket):
            yield websocket


def address(peer: RawServer) -> str:
    return peer.url.replace("http", "ws", 1)


async def ended(peer: RawServer) -> None:
    await anyio.to_thread.run_sync(peer.wait_ended)


async def test_messages_of_any_size_go_both_ways_untouched() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            for size in SIZES:
                for message in ("é" * size, b"\xff" * size):
                    await websocket.send(message)
                    assert await websocket.recv() == message


async def test_bytes_may_be_sent_from_any_buffer() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            for message in (
                bytearray(b"image"),
                memoryview(b"an image")[3:],
                memoryview(b"i_m_a_g_e_")[::2],
            ):
                await websocket.send(message)
                assert await websocket.recv() == b"image"
            for size in (8, 80_000):  # of items with eight bytes
                numbers = memoryview(bytes(range(8)) * size).cast("Q")
                await websocket.send(numbers)
                assert await websocket.recv() == numbers.tobytes()


async def test_a_long_message_may_be_changed_once_it_is_sent() -> None:
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
    + more("ag—".encode()[:3])
    + frame(Opcode.PONG, b"")
    + more("ag—".encode()[3:], fin=True)
    + binary(b"", fin=False)
    + more(b"end", fin=True)
)
MESSAGES = ["one", b"\x00" * 130, "frag—", b"end"]


def slicing(size: int) -> Callable[[httpx.URL], Awaitable[SocketStream]]:
    """A way to connect by which everything arrives in slices of a size."""

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
async def test_frames_may_be_cut_anywhere(size: int) -> None:
    # Slices that are one byte longer than the script cut it at every offset in turn.
    repetitions = len(SCRIPT) if size > 7 else 3

    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(SCRIPT * repetitions)
        for _ in range(repetitions):
            socketeer.expect(Opcode.PONG, b"?")
            socketeer.expect(Opcode.PONG, b"!")
        socketeer.agree()

    with RawServer(speaking(script)) as peer:
        async with opened(address(peer), connect=slicing(size)) as websocket:
            for _ in range(repetitions):
                assert [await websocket.recv() for _ in MESSAGES] == MESSAGES


async def test_frames_may_come_along_with_the_answer_to_the_handshake() -> None:
    def script(line: RawConnection) -> None:
        ScriptedWebSocket(line, early=SCRIPT).agree()

    with RawServer(script) as peer:
        async with opened(address(peer)) as websocket:
            assert [await websocket.recv() for _ in MESSAGES] == MESSAGES


async def test_compression_is_off_unless_asked_for() -> None:
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


async def test_messages_go_over_tls(authority: trustme.CA) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    async def secure(url: httpx.URL) -> SocketStream:
        return await connect("localhost", url.port or 443, tls=client)

    with websockets_server(echo, ssl=server) as url:
        async with opened(url.replace("ws", "wss", 1), connect=secure) as websocket:
            for message in ("text", b"x" * 3_000_000):
                await websocket.send(message)
                assert await websocket.recv() == message


async def test_pings_are_answered_while_nobody_receives() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        for number in range(3):
            socketeer.line.send(frame(Opcode.PING, b"%d" % number))
            socketeer.expect(Opcode.PONG, b"%d" % number)
        socketeer.line.send(text("done"))
        heard.set()
        socketeer.agree()

    heard = threading.Event()
    with RawServer(speaking(script)) as peer:
        async with opened(address(peer)) as websocket:
            await anyio.to_thread.run_sync(heard.wait)
            assert await websocket.recv() == "done"


async def test_a_peer_that_pings_and_does_not_listen_is_answered_once_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_PONG_BACKLOG", 10_000)

    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(frame(Opcode.PING, b"x" * 125) * 8000)
        socketeer.line.send(text("that was it"))
        assert listen.wait(PATIENCE)
        number = 0
        while bytes(socketeer.read().data) != b"last":
            number += 1
            if number % 100 == 0:
                socketeer.line.send(frame(Opcode.PING, b"last"))

    async def narrow(url: httpx.URL) -> SocketStream:
        stream = await connect(url.host, url.port or 80)
        stream._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return stream

    listen = threading.Event()
    with RawServer(speaking(script), receive_buffer=4096) as peer:
        async with opened(address(peer), connect=narrow) as websocket:
            assert await websocket.recv() == "that was it"
            assert 0 < websocket._send_buffer.size < 10_000 + 2 * READ_SIZE
            listen.set()
            await ended(peer)


async def test_a_silent_peer_that_answers_pings_is_kept() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        for _ in range(3):
            socketeer.expect(Opcode.PING, b"")
            socketeer.line.send(frame(Opcode.PONG, b""))
        socketeer.line.send(text("still here"))
        socketeer.agree()

    with RawServer(speaking(script)) as peer:
        async with opened(address(peer), ping_interval=0.01, ping_timeout=5.0) as websocket:
            assert await websocket.recv() == "still here"


async def test_a_peer_that_answers_no_ping_is_given_up() -> None:
    with RawServer(speaking(lambda socketeer: socketeer.line.wait_closed())) as peer:
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


async def test_a_peer_that_answers_no_ping_is_given_up_while_nobody_receives() -> None:
    with RawServer(speaking(lambda socketeer: socketeer.line.wait_closed())) as peer:
        async with opened(address(peer), ping_interval=0.01, ping_timeout=0.01) as websocket:
            await ended(peer)
            with pytest.raises(RealtimeDisconnectedError):
                await websocket.send("anyone?")


@pytest.mark.parametrize(
    "frames", [[binary(b"x" * 101)], [binary(b"x" * 60, fin=False), more(b"x" * 60)]]
)
async def test_a_message_that_is_too_long_ends_the_connection(frames: list[bytes]) -> None:
    codes: list[int] = []

    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(binary(b"x" * 100), *frames)
        codes.append(socketeer.agree())

    with RawServer(speaking(script)) as peer:
        async with opened(address(peer), max_message_size=100) as websocket:
            assert await websocket.recv() == b"x" * 100
            with pytest.raises(InvalidResponseError, match="more than 100 bytes"):
                await websocket.recv()
            with pytest.raises(InvalidResponseError, match="more than 100 bytes"):
                await websocket.send("more?")
            assert websocket.close_code == 1009
        await ended(peer)
    assert codes == [1009]


async def test_a_compressed_message_that_is_too_long_is_not_inflated() -> None:
    bomb = bytes(20_000_000)

    def handler(connection: ServerConnection) -> None:
        connection.send(b"x" * 1000)
        connection.recv()
        connection.send(bomb)
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
    assert peak < len(bomb) / 4


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
async def test_breaking_the_protocol_ends_the_connection(name: str) -> None:
    frames, code = VIOLATIONS[name]
    codes: list[int] = []

    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(text("fine") + frames)
        codes.append(socketeer.close_code())

    with RawServer(speaking(script)) as peer:
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


async def test_a_receiver_that_does_not_come_stops_the_sender() -> None:
    messages = [bytes([number]) * 200_000 for number in range(60)]

    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(*map(binary, messages))
        socketeer.agree()

    with RawServer(speaking(script)) as peer:
        async with opened(address(peer)) as websocket:
            while websocket._receive_buffer.size < RECEIVE_LIMIT:
                await anyio.lowlevel.checkpoint()
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            assert websocket._receive_buffer.size < RECEIVE_LIMIT + 200_000
            assert [await websocket.recv() for _ in messages] == messages


async def test_messages_without_content_are_held_in_bounds_too() -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(text("", fin=False) + more(b"") * 1000 + more(b"", fin=True))
        socketeer.line.send(binary(b"") * 18_000)
        socketeer.agree()

    with RawServer(speaking(script)) as peer:
        async with opened(address(peer)) as websocket:
            while websocket._receive_buffer.size < RECEIVE_LIMIT:
                await anyio.lowlevel.checkpoint()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert len(websocket._receive_buffer) <= RECEIVE_LIMIT // MESSAGE_OVERHEAD + CHUNK // 2
            assert await websocket.recv() == ""
            for _ in range(18_000):
                assert await websocket.recv() == b""


async def test_a_peer_that_does_not_read_stops_the_senders_and_loses_nothing() -> None:
    read = threading.Event()
    received: list[bytes] = []

    def script(socketeer: ScriptedWebSocket) -> None:
        assert read.wait(PATIENCE)
        while (message := socketeer.read()).opcode is Opcode.BINARY:
            received.append(bytes(message.data))
        socketeer.line.send(close())

    sent: list[bytes] = []

    async def send(websocket: WebSocket, name: bytes) -> None:
        while True:
            await websocket.send(name * 1000)
            sent.append(name * 1000)

    with RawServer(speaking(script)) as peer:
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
    # A send that was cancelled while it waited has sent nothing.
    assert sorted(received[:-1]) == sorted(sent)
    assert received[-1] == b"last"


async def test_tasks_that_send_at_once_do_not_mix_their_messages() -> None:
    messages = [bytes([number]) * (number * 300) for number in range(100)]
    with websockets_server(echo) as url:
        async with opened(url) as websocket, anyio.create_task_group() as tasks:
            for message in messages:
                tasks.start_soon(websocket.send, message)
            received = [await websocket.recv() for _ in messages]
    assert sorted(received, key=len) == messages


async def test_a_second_receiver_is_refused_and_the_first_gets_its_message() -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket, anyio.create_task_group() as tasks:
            received: list[str | bytes | bytearray] = []

            async def receive() -> None:
                received.append(await websocket.recv())

            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(InvalidRequestError, match="another task is receiving"):
                await websocket.recv()
            await websocket.send("for the first")
    assert received == ["for the first"]


async def test_messages_that_are_sent_in_a_row_are_written_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "IDLE_READ_INTERVAL", 60.0)  # reading counts as a turn of the loop
    streams: list[CountingStream] = []

    class CountingStream(SocketStream):
        writes = 0

        def send_nowait(self, item: bytes | memoryview) -> int:
            self.writes += 1
            return super().send_nowait(item)

    async def counting(url: httpx.URL) -> SocketStream:
        stream = await connect(url.host, url.port or 80)
        streams.append(CountingStream(stream._socket))
        return streams[0]

    with websockets_server(echo) as url:
        async with opened(url, connect=counting) as websocket:
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
                # With nothing received in between, every other one has to wait for the loop.
                await websocket.send("a message of many")
                assert streams[0].writes == writes
                await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("message", [None, 1, {"prompt": "a cat"}, "\ud800"])
async def test_what_is_no_message_is_refused_and_the_connection_stays_usable(
    message: object,
) -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            with pytest.raises(InvalidRequestError):
                await websocket.send(message)  # type: ignore[arg-type]  # that is the point
            await websocket.send("a message")
            assert await websocket.recv() == "a message"


async def test_closing_tells_the_other_side_and_waits_for_its_answer() -> None:
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
async def test_a_close_that_cannot_be_sent_is_refused(code: Any, reason: Any) -> None:
    with websockets_server(echo) as url:
        async with opened(url) as websocket:
            with pytest.raises(InvalidRequestError, match="close"):
                await websocket.close(code, reason)
            await websocket.send("still open")
            assert await websocket.recv() == "still open"


async def test_closing_while_another_task_receives_lets_that_task_go() -> None:
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


async def test_messages_that_came_before_the_close_are_delivered() -> None:
    codes: list[int] = []

    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(text("one") + text("two") + close(4001, "enough") + text("not heard"))
        codes.append(socketeer.close_code())

    with RawServer(speaking(script)) as peer:
        async with opened(address(peer)) as websocket:
            await ended(peer)
            assert [await websocket.recv(), await websocket.recv()] == ["one", "two"]
            with pytest.raises(RealtimeDisconnectedError) as caught:
                await websocket.recv()
            assert (caught.value.close_code, caught.value.close_reason) == (4001, "enough")
            with pytest.raises(RealtimeDisconnectedError, match="code 4001"):
                await websocket.send("too late")
    assert codes == [4001]


async def test_a_close_without_a_code_is_one() -> None:
    with RawServer(speaking(lambda socketeer: socketeer.line.send(b"\x88\x00"))) as peer:
        async with opened(address(peer)) as websocket:
            with pytest.raises(RealtimeDisconnectedError) as caught:
                await websocket.recv()
    assert (caught.value.close_code, caught.value.close_reason) == (1005, "")


async def test_a_close_that_is_not_answered_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.01)
    with RawServer(speaking(lambda socketeer: socketeer.line.wait_closed())) as peer:
        async with opened(address(peer)) as websocket:
            await websocket.close()
            assert (websocket.close_code, websocket.close_reason) == (
                1006,
                "the server did not respond to the close frame",
            )


@pytest.mark.parametrize("late", [text("late"), frame(Opcode.TEXT, b"\xff")])
async def test_what_arrives_after_our_close_is_for_nobody(late: bytes) -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        code = socketeer.close_code()
        socketeer.line.send(late, close(code))

    with RawServer(speaking(script)) as peer:
        async with opened(address(peer)) as websocket:
            await websocket.close()
            assert websocket.close_code == 1000
            with pytest.raises(RealtimeDisconnectedError):
                await websocket.recv()


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_connection_that_is_lost_without_a_word_is_told(leave: str) -> None:
    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(text("one") + binary(b"half of a message")[:5])
        socketeer.expect(Opcode.TEXT, b"go")
        getattr(socketeer.line, leave)()

    with RawServer(speaking(script)) as peer:
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


async def test_a_sender_hears_why_the_other_side_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_READ_INTERVAL", 60.0)

    def script(socketeer: ScriptedWebSocket) -> None:
        socketeer.line.send(text("one") + close(1011, "the app crashed"))

    with RawServer(speaking(script)) as peer:
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


async def test_senders_that_wait_for_room_hear_of_the_loss() -> None:
    full = threading.Event()

    def script(socketeer: ScriptedWebSocket) -> None:
        assert full.wait(PATIENCE)
        socketeer.line.reset()

    errors: list[FalClientError] = []

    async def send(websocket: WebSocket) -> None:
        try:
            while True:
                await websocket.send(b"x" * 10_000)
        except RealtimeDisconnectedError as error:
            errors.append(error)

    with RawServer(speaking(script)) as peer:
        async with opened(address(peer)) as websocket, anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(send, websocket)
            while websocket._send_buffer.size <= HIGH_WATER:
                await anyio.lowlevel.checkpoint()
            full.set()
    assert len(errors) == 3


async def test_a_round_trip_that_is_cancelled_anywhere_leaves_a_usable_connection() -> None:
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


async def test_a_send_that_is_cancelled_sends_nothing_and_a_recv_loses_nothing() -> None:
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


async def test_the_background_tasks_end_with_the_connection() -> None:
    with RawServer(speaking(lambda socketeer: socketeer.line.send(close()))) as peer:
        websocket = await connect_websocket(address(peer))
        with anyio.fail_after(PATIENCE):
            with pytest.raises(RealtimeDisconnectedError):
                await websocket.recv()
            await websocket.close()
        assert all(task.done for task in websocket._background)


async def test_connecting_that_is_cancelled_anywhere_leaves_nothing_open(
    recwarn: pytest.WarningsRecorder,
) -> None:
    streams: list[SocketStream] = []

    async def noting(url: httpx.URL) -> SocketStream:
        streams.append(await connect(url.host, url.port or 80))
        return streams[-1]

    with websockets_server(echo) as url:

        async def use() -> None:
            websocket = await connect_websocket(url, connect=noting)
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


async def test_a_close_that_is_cancelled_closes_at_once() -> None:
    with RawServer(speaking(lambda socketeer: socketeer.line.wait_closed())) as peer:
        async with opened(address(peer)) as websocket:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await websocket.close()
            assert websocket.close_code == 1006
            await ended(peer)


async def test_an_error_in_the_block_comes_out_as_it_is_and_the_connection_is_closed() -> None:
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


async def test_a_block_that_is_cancelled_closes_the_connection_properly() -> None:
    answer = threading.Event()

    def script(socketeer: ScriptedWebSocket) -> None:
        code = socketeer.close_code()
        assert answer.wait(PATIENCE)
        socketeer.line.send(close(code))

    async def let_it_answer(websocket: WebSocket) -> None:
        while websocket._protocol.close_sent is None:
            await anyio.lowlevel.checkpoint()
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        answer.set()

    with RawServer(speaking(script)) as peer:
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with opened(address(peer)) as websocket:
                    tasks.start_soon(let_it_answer, websocket)
                    scope.cancel()
                    await websocket.recv()
    assert scope.cancelled_caught
    assert websocket.close_code == 1000


async def test_what_was_sent_just_before_a_cancellation_goes_out_with_the_close() -> None:
    heard: SimpleQueue[str | bytes | int | None] = SimpleQueue()

    def handler(connection: ServerConnection) -> None:
        for message in connection:
            heard.put(message)
        heard.put(connection.close_code)

    async def send_and_cancel(websocket: WebSocket) -> None:
        await websocket.send("a last word")
        scope.cancel()

    with websockets_server(handler) as url, anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:
                async with opened(url) as websocket:
                    tasks.start_soon(send_and_cancel, websocket)
                    await websocket.recv()
    assert websocket.close_code == 1000
    assert [heard.get(timeout=PATIENCE) for _ in range(2)] == ["a last word", 1000]
