"""``ws.fal.run``: HTTP requests, one after the other, over one WebSocket."""

from __future__ import annotations

import codecs
import time
from typing import TYPE_CHECKING

from fal_async.emulator._hosts.base import Call, authorize, parse_called_id
from fal_async.emulator._json import encode
from fal_async.emulator._server.websocket import DisconnectedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._responses import Message, RawHeaders
    from fal_async.emulator._server.websocket import WebSocket
    from fal_async.emulator._state import PlatformState

#: Headers of the handshake that say nothing about the requests.
_OF_THE_HANDSHAKE = ("connection", "content-", "sec-websocket-", "upgrade")


class WebSocketHTTPHost:
    """Answers requests for a WebSocket to ``ws.fal.run``.

    Args:
        platform: The platform.
        answer: Answers one of the requests that come over it.
    """

    def __init__(
        self, platform: PlatformState, answer: Callable[[GatewayRequest], Awaitable[None]]
    ) -> None:
        self._platform = platform
        self._answer = answer

    def call(self, exchange: GatewayRequest) -> Call:
        """A WebSocket that carries requests to one endpoint."""
        return Call("over_websocket", parse_called_id(exchange.location.path))

    async def answer(self, exchange: GatewayRequest, call: Call) -> None:
        """Answer request after request."""
        authorize(self._platform, exchange, call)
        websocket = exchange.upgrade()
        headers = {
            name: value
            for name, value in exchange.headers.items()
            if not name.startswith(_OF_THE_HANDSHAKE)
        }
        headers["content-type"] = "application/json"
        try:
            await websocket.accept()
            while True:
                message = await websocket.recv()
                body = message.encode() if isinstance(message, str) else message
                await self._answer(exchange.over_websocket(body, headers, _Frames(websocket)))
        except DisconnectedError:
            return


class _Frames:
    """The ASGI ``send`` that writes a response as messages: a start, parts of the body, an end."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._began = time.perf_counter()
        self._first_byte: float | None = None
        #: Puts characters together that the parts of the body cut through; ``None`` for bytes.
        self._text: codecs.IncrementalDecoder | None = None
        self._identity: dict[str, object] = {}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message["status"], message["headers"])
        elif message["type"] == "http.response.body":
            await self._chunk(message.get("body", b""))
            if not message.get("more_body", False):
                await self._end()

    async def _start(self, status: int, headers: RawHeaders) -> None:
        names = {name.decode("latin-1").title(): value.decode("latin-1") for name, value in headers}
        if names.get("Content-Type", "").startswith("application/json"):
            self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._identity = {"request_id": names["X-Fal-Request-Id"], "status": status}
        await self._say("start", {"headers": names})

    async def _chunk(self, body: bytes) -> None:
        part = body if self._text is None else self._text.decode(body)
        if not part:
            return
        if self._first_byte is None:
            self._first_byte = time.perf_counter() - self._began
        await self._websocket.send(part)

    async def _end(self) -> None:
        seconds = self._first_byte or time.perf_counter() - self._began
        await self._say("end", {"time_to_first_byte_seconds": round(seconds, 6)})

    async def _say(self, kind: str, more: dict[str, object]) -> None:
        await self._websocket.send(encode({"type": kind, **self._identity, **more}).decode())
