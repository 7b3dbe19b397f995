"""The server's end of a WebSocket, with a hand on the bytes."""

from __future__ import annotations

import asyncio
import http.client
from collections import deque
from typing import TYPE_CHECKING, Final

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from fal_async.emulator._replies import RawHeaders, Reply
    from fal_async.emulator._server import Connection

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
        return self._protocol.state is OPEN and not self._connection.is_lost

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
        await self._was_sent()

    async def refuse(self, reply: Reply) -> None:
        """Answer the handshake with an ordinary reply."""
        headers = Headers(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in reply.headers
        )
        headers["connection"] = "close"
        headers.setdefault("content-length", str(len(reply.body)))
        phrase = http.client.responses.get(reply.status, "")
        self._protocol.send_response(Response(reply.status, phrase, headers, reply.body))
        self._flush()
        self._news.set()

    async def recv(self) -> str | bytes:
        """Receive the next message.

        Raises:
            DisconnectedError: There is none, nor will there be.
        """
        while not self._inbox:
            # Before the handshake is answered there is nothing yet, but there may be.
            if self._connection.is_lost or (self.was_answered and not self.is_open):
                raise self._end()
            self._news.clear()
            await self._news.wait()
        message = self._inbox.popleft()
        self._inbox_size -= len(message)
        self._pace()
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
        await self._was_sent()

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

    def fall_silent(self) -> None:
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
        self._pace()

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
                self._hang_up()

    def _write(self, data: bytes) -> None:
        if self._is_silent or self._transport is None:
            return
        if self._cut is None or (last_words := self._cut.last_words(data)) is None:
            self._transport.write(data)
        else:
            self._is_silent = True
            self._cut.begin(self._connection.end(last_words, reset=self._cut.reset))

    def _hang_up(self) -> None:
        """End our half, and let the client end its own: to close at once might lose our words."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, transport.close)

    def _pace(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._inbox_size > _HIGH_WATER:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    async def _was_sent(self) -> None:
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
