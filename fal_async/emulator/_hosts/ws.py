"""``ws.fal.run``: HTTP requests in sequence over one WebSocket."""

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

#: Prefixes of handshake headers that the requests do not inherit.
_HANDSHAKE_HEADERS = ("connection", "content-", "sec-websocket-", "upgrade")


class WebSocketHTTPHost:
    """Handles WebSocket requests to ``ws.fal.run``.

    Args:
        platform: The state of the platform.
        handle_request: Handles one request over the WebSocket.
    """

    def __init__(
        self,
        platform: PlatformState,
        handle_request: Callable[[GatewayRequest], Awaitable[None]],
    ) -> None:
        self._platform = platform
        self._handle_request = handle_request

    def classify(self, request: GatewayRequest) -> Call:
        """Classify a request as a WebSocket for requests to one endpoint."""
        return Call("over_websocket", parse_called_id(request.location.path))

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        """Handle the requests over the WebSocket, one after the other."""
        authorize(self._platform, request, call)
        websocket = request.upgrade()
        headers = {
            name: value
            for name, value in request.headers.items()
            if not name.startswith(_HANDSHAKE_HEADERS)
        }
        headers["content-type"] = "application/json"
        try:
            await websocket.accept()
            while True:
                message = await websocket.recv()
                body = message.encode() if isinstance(message, str) else message
                send = _MessageSend(websocket)
                await self._handle_request(request.over_websocket(body, headers, send))
        except DisconnectedError:
            return


class _MessageSend:
    """An ASGI ``send`` that writes a response as messages: a start, chunks of the body, an end."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._started = time.perf_counter()
        self._first_byte: float | None = None
        #: Joins characters that chunks of the body divide; ``None`` for binary bodies.
        self._decoder: codecs.IncrementalDecoder | None = None
        self._common: dict[str, object] = {}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            raw_headers: RawHeaders = message["headers"]
            headers = {
                name.decode("latin-1").title(): value.decode("latin-1")
                for name, value in raw_headers
            }
            if headers.get("Content-Type", "").startswith("application/json"):
                self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._common = {"request_id": headers["X-Fal-Request-Id"], "status": message["status"]}
            await self._send_event("start", {"headers": headers})
        elif message["type"] == "http.response.body":
            body: bytes = message.get("body", b"")
            chunk = body if self._decoder is None else self._decoder.decode(body)
            if chunk:
                if self._first_byte is None:
                    self._first_byte = time.perf_counter() - self._started
                await self._websocket.send(chunk)
            if not message.get("more_body", False):
                seconds = self._first_byte or time.perf_counter() - self._started
                await self._send_event("end", {"time_to_first_byte_seconds": round(seconds, 6)})

    async def _send_event(self, kind: str, fields: dict[str, object]) -> None:
        event = {"type": kind, **self._common, **fields}
        await self._websocket.send(encode(event).decode())
