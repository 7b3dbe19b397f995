"""WebSockets of ASGI apps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fal_async.emulator._answer import check_head
from fal_async.emulator._replies import Refusal, Reply, detail
from fal_async.emulator._websocket import DisconnectedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async.emulator._replies import Message, RawHeaders
    from fal_async.emulator._websocket import WebSocket

#: Headers that are between the client and the server.
_OF_THE_HANDSHAKE = (b"sec-websocket-", b"upgrade", b"content-length")


async def serve_app(
    app: Callable[..., Awaitable[None]], scope: dict[str, Any], websocket: WebSocket
) -> None:
    """Have an app serve a WebSocket.

    Args:
        app: The app.
        scope: The scope of the call, as that of an HTTP request would be.
        websocket: The WebSocket.

    Raises:
        Refusal: The app turned the client away.
    """
    exchange = _Exchange(websocket)
    headers: RawHeaders = scope["headers"]
    own: dict[str, object] = {
        "type": "websocket",
        "scheme": "ws",
        "headers": [pair for pair in headers if not pair[0].startswith(_OF_THE_HANDSHAKE)],
        "subprotocols": websocket.subprotocols,
        "extensions": {"websocket.http.response": {}},
    }
    call = {key: value for key, value in scope.items() if key != "method"}
    await app({**call, **own}, exchange.receive, exchange.send)
    if exchange.refusal is not None:
        raise exchange.refusal
    if not websocket.was_answered:
        raise RuntimeError("the app neither accepted nor closed the WebSocket")
    await websocket.close()


class _Exchange:
    """The app's two ends of the connection."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._has_begun = False
        self._start: Message = {}
        self._body = b""
        self.refusal: Refusal | None = None

    async def receive(self) -> Message:
        if not self._has_begun:
            self._has_begun = True
            return {"type": "websocket.connect"}
        if self.refusal is not None:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        try:
            message = await self._websocket.recv()
        except DisconnectedError as error:
            return {"type": "websocket.disconnect", "code": error.code, "reason": error.reason}
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self._websocket.headers += message.get("headers", [])
                await self._websocket.accept(message.get("subprotocol"))
            case "websocket.send":
                text = message.get("text")
                await self._send(message["bytes"] if text is None else text)
            case "websocket.close" if self._websocket.was_answered:
                await self._websocket.close(message.get("code", 1000), message.get("reason") or "")
            case "websocket.close":
                self.refusal = Refusal(detail(403, "Forbidden"))
            case "websocket.http.response.start":
                check_head(message["status"], message.get("headers", []))
                self._start = message
            case "websocket.http.response.body":
                self._refuse_with(message)
            case kind:
                raise RuntimeError(f"{kind} has no place here")

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._websocket.send(message)
        except DisconnectedError as error:
            raise OSError("the client has gone") from error  # what the specification says

    def _refuse_with(self, message: Message) -> None:
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            headers = [
                (name.lower(), value)
                for name, value in self._start.get("headers", [])
                if name.lower() != b"content-length"
            ]
            self.refusal = Refusal(Reply(self._start["status"], self._body, headers))
