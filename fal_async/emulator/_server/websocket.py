"""The server side of a WebSocket, with control over the bytes."""

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
    from collections.abc import Awaitable, Callable

    from uvicorn.server import ServerState

    from fal_async.emulator._responses import App, Message, RawHeaders
    from fal_async.emulator._server.connection import Connection

__all__ = ["DisconnectedError", "WebSocket"]

#: The maximum size of a message from a client, in bytes.
MAX_SIZE: Final = 16 * 1024 * 1024
#: The size of buffered messages above which nothing more is read from the client, in bytes.
_HIGH_WATER: Final = 4 * MAX_SIZE
#: The maximum time to wait for the client's part of the closing handshake, in seconds.
_CLOSE_TIMEOUT: Final = 1.0


class DisconnectedError(Exception):
    """The WebSocket is closed, by the client or by the app.

    Attributes:
        code: The close code; 1006 if there was no closing handshake.
        reason: The close reason.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebSocket:
    """A WebSocket from its handshake request to its end.

    The first call is `accept` or `reject`. `recv` returns complete messages.

    Attributes:
        headers: Additional headers of the handshake response.
        on_accepted: Called when the WebSocket has been accepted.
        sent: The number of messages sent.
        on_sent: Awaited with that number when the WebSocket has been accepted, and after each sent
            message.
    """

    def __init__(self, connection: Connection, *, compression: bool = False) -> None:
        extensions = [ServerPerMessageDeflateFactory()] if compression else None
        self._protocol = ServerProtocol(max_size=MAX_SIZE, extensions=extensions)
        self._connection = connection
        self._request: Request | None = None
        self._transport: asyncio.Transport | None = None
        self._messages: deque[str | bytes] = deque()
        self._messages_size = 0
        self._fragments: list[Frame] = []
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.sent: int = 0
        self._is_stalled = False
        #: The number of bytes until the connection is truncated, and whether it is reset then.
        self._truncation: tuple[int, bool] | None = None
        self._truncate_task: asyncio.Task[None] | None = None
        self.headers: RawHeaders = []
        self.on_accepted: Callable[[], object] | None = None
        self.on_sent: Callable[[int], Awaitable[None]] | None = None

    @property
    def has_response(self) -> bool:
        """True if the handshake response has been sent."""
        return self._protocol.state is not CONNECTING or self._protocol.eof_sent

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols that the client offers, in its order of preference."""
        request = self._request
        offers = request.headers.get_all("Sec-WebSocket-Protocol") if request else []
        return [name.strip() for offer in offers for name in offer.split(",")]

    @property
    def is_open(self) -> bool:
        """True if messages can be sent."""
        return self._protocol.state is OPEN and not self._connection.is_closed

    async def accept(self, subprotocol: str | None = None) -> None:
        """Accept the handshake, unless the request is not valid.

        Raises:
            DisconnectedError: The request is not valid, or the connection is closed.
        """
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
        if self.on_sent is not None:
            await self.on_sent(self.sent)

    async def reject(self, response: Response) -> None:
        """Reject the handshake with an HTTP response."""
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
        self._changed.set()

    async def recv(self) -> str | bytes:
        """Receive the next message.

        Raises:
            DisconnectedError: The WebSocket is closed, and all messages have been received.
        """
        while not self._messages:
            # Before the handshake response there are no messages, but the WebSocket may still open.
            if self._connection.is_closed or (self.has_response and not self.is_open):
                raise self._disconnected()
            self._changed.clear()
            await self._changed.wait()
        message = self._messages.popleft()
        self._messages_size -= len(message)
        self._update_flow_control()
        return message

    async def send(self, message: str | bytes) -> None:
        """Send a message.

        Raises:
            DisconnectedError: The WebSocket is closed.
        """
        if not self.is_open:
            raise self._disconnected()
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self.sent += 1
        self._flush()
        await self._writable.wait()
        if self.on_sent is not None:
            await self.on_sent(self.sent)

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Perform the closing handshake, and wait a limited time for the client's part."""
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._flush()
            self._set_closed()
            asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, self._connection.abort)
        await self._connection.wait_closed()

    async def disconnect(self, final_bytes: bytes = b"", *, reset: bool = False) -> None:
        """Close or reset the connection without a closing handshake, after sending raw bytes."""
        await self._connection.close(final_bytes, reset=reset)

    async def wait_closed(self) -> None:
        """Wait until messages can no longer be sent."""
        await self._closed.wait()

    def stall(self) -> None:
        """Stop sending, pongs included, and stop reading, but stay connected."""
        self._is_stalled = True

    def truncate(self, size: int, *, reset: bool) -> None:
        """Send `size` more bytes to the client, then close or reset the connection."""
        self._truncation = (size, reset)
        self._write(b"")

    # The protocol below calls the remaining public methods.

    def open(self, transport: asyncio.Transport, head: bytes) -> bool:
        """Start with the bytes of a handshake request. Return whether the request is complete."""
        self._transport = transport
        self._protocol.receive_data(head)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._request = event
        self._flush()
        return self._request is not None

    def receive(self, data: bytes) -> None:
        """Process bytes from the client; none for the end of them."""
        if self._is_stalled:
            return
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._receive_frame(event)
        self._flush()
        if not self.is_open and self.has_response:
            self._set_closed()
        self._update_flow_control()

    def connection_lost(self) -> None:
        """Handle the end of the connection."""
        self._writable.set()
        self._set_closed()

    def pause_writing(self, *, paused: bool) -> None:
        """Pause `send` while the write buffer is full."""
        if paused:
            self._writable.clear()
        else:
            self._writable.set()

    def _receive_frame(self, frame: Frame) -> None:
        if frame.opcode not in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            return
        self._fragments.append(frame)
        if not frame.fin:
            return
        payload = b"".join(fragment.data for fragment in self._fragments)
        is_text = self._fragments[0].opcode is Opcode.TEXT
        self._fragments.clear()
        try:
            message = payload.decode() if is_text else payload
        except UnicodeDecodeError:
            self._protocol.fail(CloseCode.INVALID_DATA, "invalid UTF-8 in a text message")
            return
        self._messages.append(message)
        self._messages_size += len(message)
        self._changed.set()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._write(data)
                continue
            transport = self._transport
            if self._is_stalled or transport is None or transport.is_closing():
                continue
            if transport.can_write_eof():
                # Only half of the connection: closing both could discard what was just sent.
                transport.write_eof()
                asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, transport.close)
            else:
                transport.close()

    def _write(self, data: bytes) -> None:
        if self._is_stalled or self._transport is None:
            return
        if self._truncation is None:
            self._transport.write(data)
            return
        remaining, reset = self._truncation
        if len(data) < remaining:
            self._truncation = (remaining - len(data), reset)
            self._transport.write(data)
        else:
            self._is_stalled = True
            self._truncate_task = asyncio.create_task(
                self._connection.close(data[:remaining], reset=reset)
            )

    def _update_flow_control(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._messages_size > _HIGH_WATER:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _set_closed(self) -> None:
        self._closed.set()
        self._changed.set()

    def _disconnected(self) -> DisconnectedError:
        close = self._protocol.close_rcvd or self._protocol.close_sent
        if close is None:
            return DisconnectedError(CloseCode.ABNORMAL_CLOSURE)
        return DisconnectedError(close.code, close.reason)


class WebSocketProtocol(asyncio.Protocol):
    """The protocol of a connection after its handshake request, in the place of uvicorn's own.

    The app finds the `WebSocket` in its scope. Until the app accepts it, it can also send an HTTP
    response.
    """

    def __init__(self, config: Any, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._app: App = config.loaded_app  # uvicorn's own type is too general
        self._tasks = server_state.tasks
        self._state = app_state
        self._websocket = WebSocket(app_state["connection"], compression=app_state["compression"])
        self._is_open = False

    def connection_made(  # type: ignore[override]  # a server's transports are of this kind
        self, transport: asyncio.Transport
    ) -> None:
        """Receive the transport from uvicorn's HTTP protocol."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Process the handshake request first, then the frames."""
        if self._is_open:
            self._websocket.receive(data)
            return
        self._is_open = True
        if not self._websocket.open(self._transport, data):
            return
        request, *lines = data.decode("latin-1").split("\r\n")
        path, _, query = request.split(" ")[1].partition("?")
        pairs = (line.partition(": ") for line in lines if line)
        headers: RawHeaders = [(n.encode("latin-1"), v.encode("latin-1")) for n, _, v in pairs]
        is_tls = self._transport.get_extra_info("sslcontext") is not None
        scope = {
            "type": "websocket",
            "method": "GET",
            "scheme": "https" if is_tls else "http",
            "path": unquote(path),
            "query_string": query.encode("latin-1"),
            "headers": headers,
            "state": dict(self._state),
            "websocket": self._websocket,
        }

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        run = self._app(scope, receive, _RejectingSend(self._websocket))
        task = asyncio.ensure_future(run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def eof_received(self) -> None:
        """Process the end of the client's bytes."""
        self._websocket.receive(b"")

    def pause_writing(self) -> None:
        """Pause sending: the write buffer is full."""
        self._websocket.pause_writing(paused=True)

    def resume_writing(self) -> None:
        """Resume sending."""
        self._websocket.pause_writing(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the connection."""
        self._state["connection"].connection_lost()
        self._websocket.connection_lost()


class _RejectingSend:
    """An ASGI ``send`` that rejects the handshake with an HTTP response."""

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
            await self._websocket.reject(response)
