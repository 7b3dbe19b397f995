"""Where a connection leaves HTTP: the protocol that takes it over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fal_async.emulator._replies import Reply
from fal_async.emulator._websocket import WebSocket

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from fal_async.emulator._replies import Message, RawHeaders
    from fal_async.emulator._server import App


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
    """An ASGI ``send`` that answers the handshake with an HTTP reply."""

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
            reply = Reply(self._start["status"], self._body, self._start["headers"])
            await self._websocket.refuse(reply)
