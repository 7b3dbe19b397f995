"""The server's end of a WebSocket, with a hand on the bytes."""

from __future__ import annotations

import asyncio
import http.client
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.http11 import Response as HandshakeResponse
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol

from fal_async.emulator._responses import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from uvicorn.server import ServerState

    from fal_async.emulator._responses import Message, RawHeaders
    from fal_async.emulator._server.http import App, Connection

__all__ = ["DisconnectedError", "WebSocket"]


#: The longest message that a client may send, in bytes.
MAX_SIZE: Final = 16 * 1024 * 1024


#: How many bytes of messages wait for the app before the client has to wait.
_HIGH_WATER: Final = 4 * MAX_SIZE


#: Seconds that a client has for its part of a close.
_CLOSE_TIMEOUT: Final = 1.0


class DisconnectedError(Exception):
    """The client has gone, or the connection has been closed.

    Attributes:
        code: The code of the close; 1006 when there was none.
        reason: The reason that was given for it.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class _Cut:
    """How many bytes may still pass, and the end that comes after them."""

    def __init__(self, left: int, *, reset: bool) -> None:
        self._left = left
        self._ending: asyncio.Task[None] | None = None
        self.reset = reset

    def last_words(self, data: bytes) -> bytes | None:
        """What may pass of these bytes, if they are the last; ``None`` if more may pass."""
        if len(data) >= self._left:
            return data[: self._left]
        self._left -= len(data)
        return None

    def begin(self, ending: Coroutine[None, None, None]) -> None:
        self._ending = asyncio.create_task(ending)


class WebSocket:
    """One WebSocket, from the request for it to its end.

    It is accepted or refused first. What `recv` gives are whole messages.

    Attributes:
        headers: More headers of the answer to the handshake.
        on_accepted: Told that it was accepted.
        sent: How many messages were sent.
        on_sent: Told, with their number, when it was accepted and after each message that was sent.
    """

    def __init__(self, connection: Connection, *, compression: bool = False) -> None:
        extensions = [ServerPerMessageDeflateFactory()] if compression else None
        self._protocol = ServerProtocol(max_size=MAX_SIZE, extensions=extensions)
        self._connection = connection
        self._request: Request | None = None
        self._transport: asyncio.Transport | None = None
        self._inbox: deque[str | bytes] = deque()
        self._inbox_size = 0
        self._fragments: list[Frame] = []
        self._news = asyncio.Event()
        self._closed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.sent: int = 0
        self._is_silent = False
        self._cut: _Cut | None = None
        self.headers: RawHeaders = []
        self.on_accepted: Callable[[], object] | None = None
        self.on_sent: Callable[[int], Awaitable[None]] | None = None

    @property
    def was_answered(self) -> bool:
        """Whether the handshake was answered, with a yes or a no."""
        return self._protocol.state is not CONNECTING or self._protocol.eof_sent

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers to speak, the best first."""
        request = self._request
        offers = request.headers.get_all("Sec-WebSocket-Protocol") if request else []
        return [name.strip() for offer in offers for name in offer.split(",")]

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is OPEN and not self._connection.is_closed

    async def accept(self, subprotocol: str | None = None) -> None:
        """Answer the handshake: with a yes, unless the request makes no sense."""
        if self._request is None:
            raise DisconnectedError(CloseCode.ABNORMAL_CLOSURE)
        response = self._protocol.accept(self._request)
        for name, value in self.headers:
            response.headers[name.decode("latin-1")] = value.decode("latin-1")
        if subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._protocol.send_response(response)
        self._flush()
        if not self.is_open:
            raise DisconnectedError(CloseCode.ABNORMAL_CLOSURE)
        if self.on_accepted is not None:
            self.on_accepted()
        await self._notify_sent()

    async def refuse(self, response: Response) -> None:
        """Answer the handshake with an ordinary response."""
        headers = Headers(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers
        )
        headers["connection"] = "close"
        headers.setdefault("content-length", str(len(response.body)))
        phrase = http.client.responses.get(response.status, "")
        self._protocol.send_response(
            HandshakeResponse(response.status, phrase, headers, response.body)
        )
        self._flush()
        self._news.set()

    async def recv(self) -> str | bytes:
        """Receive the next message.

        Raises:
            DisconnectedError: There is none, nor will there be.
        """
        while not self._inbox:
            # Before the handshake is answered there is nothing yet, but there may be.
            if self._connection.is_closed or (self.was_answered and not self.is_open):
                raise self._end()
            self._news.clear()
            await self._news.wait()
        message = self._inbox.popleft()
        self._inbox_size -= len(message)
        self._update_flow_control()
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a message.

        Raises:
            DisconnectedError: There is nobody to receive it.
        """
        if not self.is_open:
            raise self._end()
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self.sent += 1
        self._flush()
        await self._writable.wait()
        await self._notify_sent()

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close in good order, and wait, not for long, until the client has done so, too."""
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._flush()
            self._note_end()
            asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, self._connection.abort)
        await self._connection.wait_lost()

    async def drop(self, last_words: bytes = b"", *, reset: bool = False) -> None:
        """End the connection without a word, or with a few."""
        await self._connection.end(last_words, reset=reset)

    async def wait_closed(self) -> None:
        """Wait until messages can no longer be sent."""
        await self._closed.wait()

    def stall(self) -> None:
        """Send nothing more, not even pongs, and read nothing; but stay connected."""
        self._is_silent = True

    def cut_after(self, count: int, *, reset: bool) -> None:
        """Let so many more bytes pass to the client, then end the connection."""
        self._cut = _Cut(count, reset=reset)
        self._write(b"")

    def opened(self, transport: asyncio.Transport, head: bytes) -> bool:
        """Take over a connection; says whether the request that was read from it is whole."""
        self._transport = transport
        self._protocol.receive_data(head)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._request = event
        self._flush()
        return self._request is not None

    def received(self, data: bytes) -> None:
        """Take in what the client sent; nothing for the end of it."""
        if self._is_silent:
            return
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take(event)
        self._flush()
        if not self.is_open and self.was_answered:
            self._note_end()
        self._update_flow_control()

    def lost(self) -> None:
        """Note that the connection is no more."""
        self._writable.set()
        self._note_end()

    def pause(self, *, paused: bool) -> None:
        """Have senders wait until the client has read what was sent."""
        if paused:
            self._writable.clear()
        else:
            self._writable.set()

    def _take(self, frame: Frame) -> None:
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return
        self._fragments.append(frame)
        if not frame.fin:
            return
        whole = b"".join(fragment.data for fragment in self._fragments)
        is_text = self._fragments[0].opcode is Opcode.TEXT
        self._fragments.clear()
        try:
            message = whole.decode() if is_text else whole
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "text that is no UTF-8")
            return
        self._inbox.append(message)
        self._inbox_size += len(message)
        self._news.set()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._write(data)
            elif not self._is_silent:
                self._half_close()

    def _write(self, data: bytes) -> None:
        if self._is_silent or self._transport is None:
            return
        if self._cut is None or (last_words := self._cut.last_words(data)) is None:
            self._transport.write(data)
        else:
            self._is_silent = True
            self._cut.begin(self._connection.end(last_words, reset=self._cut.reset))

    def _half_close(self) -> None:
        """End our half, and let the client end its own: to close at once might lose our words."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, transport.close)

    def _update_flow_control(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._inbox_size > _HIGH_WATER:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    async def _notify_sent(self) -> None:
        if self.on_sent is not None:
            await self.on_sent(self.sent)

    def _note_end(self) -> None:
        self._closed.set()
        self._news.set()

    def _end(self) -> DisconnectedError:
        close = self._protocol.close_rcvd or self._protocol.close_sent
        if close is None:
            return DisconnectedError(CloseCode.ABNORMAL_CLOSURE)
        return DisconnectedError(close.code, close.reason)


class UpgradedProtocol(asyncio.Protocol):
    """A connection that asked to become a WebSocket, as uvicorn hands it over.

    The app finds the `WebSocket` in its scope; until that is accepted, it can also be answered as
    an HTTP request is.
    """

    def __init__(self, config: Any, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._app: App = config.loaded_app  # whose own type is too vague
        self._tasks = server_state.tasks
        self._state = app_state
        self._websocket = WebSocket(app_state["connection"], compression=app_state["compression"])
        self._is_open = False

    def connection_made(  # type: ignore[override]  # a server's transports are of this kind
        self, transport: asyncio.Transport
    ) -> None:
        """Take the connection over."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take the request for a WebSocket first, then what comes over it."""
        if self._is_open:
            self._websocket.received(data)
            return
        self._is_open = True
        if self._websocket.opened(self._transport, data):
            task = asyncio.get_running_loop().create_task(self._run(self._scope(data)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def eof_received(self) -> None:
        """The client will send nothing more."""
        self._websocket.received(b"")

    def pause_writing(self) -> None:
        """The client is slow."""
        self._websocket.pause(paused=True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._websocket.pause(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._state["connection"].lost()
        self._websocket.lost()

    async def _run(self, scope: Message) -> None:
        await self._app(scope, _no_body, _Answer(self._websocket))

    def _scope(self, head: bytes) -> Message:
        request, *lines = head.decode("latin-1").split("\r\n")
        path, _, query = request.split(" ")[1].partition("?")
        pairs = (line.partition(": ") for line in lines if line)
        headers: RawHeaders = [(n.encode("latin-1"), v.encode("latin-1")) for n, _, v in pairs]
        is_tls = self._transport.get_extra_info("sslcontext") is not None
        return {
            "type": "websocket",
            "method": "GET",
            "scheme": "https" if is_tls else "http",
            "path": unquote(path),
            "query_string": query.encode("latin-1"),
            "headers": headers,
            "state": dict(self._state),
            "websocket": self._websocket,
        }


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


class _Answer:
    """An ASGI ``send`` that answers the handshake with an HTTP response."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            response = Response(self._start["status"], self._body, self._start["headers"])
            await self._websocket.refuse(response)
