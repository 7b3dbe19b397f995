"""ASGI apps as runners, over HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from fal_async.emulator._gate import Gate
from fal_async.emulator._responses import RejectedError, Response, error_response, raw_headers
from fal_async.emulator._runners.execution import check_head
from fal_async.emulator._server.websocket import DisconnectedError

if TYPE_CHECKING:
    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._responses import Message, RawHeaders, Send
    from fal_async.emulator._server.websocket import WebSocket

AsgiApp: TypeAlias = Callable[..., Any]

logger = logging.getLogger("fal_async.emulator")

#: Below version 2.4 of the specification, apps receive a disconnect as a message.
_ASGI = {"version": "3.0", "spec_version": "2.3"}
#: Headers of the request to the gateway that the app does not receive.
_GATEWAY_HEADERS = frozenset({"authorization", "connection", "content-length", "transfer-encoding"})
#: Prefixes of handshake headers that the app does not receive.
_HANDSHAKE_HEADERS = (b"sec-websocket-", b"upgrade", b"content-length")
#: The maximum time to wait for an app's shutdown, in seconds.
_SHUTDOWN_TIMEOUT = 1.0


class AsgiRunner:
    """An ASGI app, called in this process."""

    streams = False
    route: Route = "socket"

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._lifespan: _Lifespan | None = None

    async def __call__(self, job: Job, send: Send) -> None:
        """Respond as the app does."""
        state = await self._start_up()
        await serve_http(self._app, job, send, state=state)

    async def serve(self, job: Job, websocket: WebSocket) -> None:
        """Serve a WebSocket. If the app raises an exception, the connection is closed.

        Raises:
            RejectedError: The app rejects the WebSocket.
        """
        scope = _make_scope(job, state=await self._start_up())
        headers: RawHeaders = scope["headers"]
        del scope["method"]
        scope |= {
            "type": "websocket",
            "scheme": "ws",
            "headers": [pair for pair in headers if not pair[0].startswith(_HANDSHAKE_HEADERS)],
            "subprotocols": websocket.subprotocols,
            "extensions": {"websocket.http.response": {}},
        }
        channel = _WebSocketChannel(websocket)
        await self._app(scope, channel.receive, channel.send)
        if channel.rejection is not None:
            raise channel.rejection
        if not websocket.has_response:
            raise RuntimeError("the app must accept or close the WebSocket")
        await websocket.close()

    async def cancel(self, job: Job) -> bool:
        """Send a cancel request to the app, at the job's path with ``/cancel`` appended.

        An app without such a path keeps running.
        """

        async def discard(message: Message) -> None:
            """Discard the response: the job's own result shows whether the app has stopped."""

        path = f"{job.path.rstrip('/')}/cancel"
        state = await self._start_up()
        try:
            await serve_http(self._app, job, discard, path=path, body=b"", state=state)
        except (Exception, SystemExit, KeyboardInterrupt):
            logger.debug("The app failed to cancel request %s", job.request_id, exc_info=True)
        return False

    async def aclose(self) -> None:
        """Shut the app down."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.shut_down()

    async def _start_up(self) -> dict[str, Any]:
        if self._lifespan is None:
            self._lifespan = _Lifespan(self._app)
        return await self._lifespan.start_up()


class _Lifespan:
    """The startup and shutdown of an app."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._started = asyncio.Event()
        self._error: str | None = None
        self._task = asyncio.create_task(self._run())

    async def start_up(self) -> dict[str, Any]:
        """Wait until the app has started, and return its state."""
        await self._started.wait()
        if self._error is not None:
            raise RuntimeError(f"cannot start the app: {self._error}")
        return self._state

    async def shut_down(self) -> None:
        """Shut the app down, and wait a limited time for it."""
        self._messages.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait([self._task], timeout=_SHUTDOWN_TIMEOUT)
        self._task.cancel()

    async def _run(self) -> None:
        async def send(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                self._error = message.get("message") or "no reason given"
            self._started.set()

        self._messages.put_nowait({"type": "lifespan.startup"})
        scope = {"type": "lifespan", "asgi": _ASGI, "state": self._state}
        try:
            await self._app(scope, self._messages.get, send)
        except (Exception, SystemExit, KeyboardInterrupt):
            logger.debug("The app does not support lifespan", exc_info=True)
        finally:
            self._started.set()


class _WebSocketChannel:
    """The ASGI ``receive`` and ``send`` of a WebSocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._connected = False
        self._start: Message = {}
        self._body = b""
        self.rejection: RejectedError | None = None

    async def receive(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self.rejection is not None:
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
                try:
                    await self._websocket.send(message["bytes"] if text is None else text)
                except DisconnectedError as error:
                    # The ASGI specification requires an OSError.
                    raise OSError("the client has disconnected") from error
            case "websocket.close" if self._websocket.has_response:
                await self._websocket.close(message.get("code", 1000), message.get("reason") or "")
            case "websocket.close":
                self.rejection = RejectedError(error_response(403, "Forbidden"))
            case "websocket.http.response.start":
                check_head(message["status"], message.get("headers", []))
                self._start = message
            case "websocket.http.response.body":
                self._body += message.get("body", b"")
                if not message.get("more_body", False):
                    headers = [
                        (name.lower(), value)
                        for name, value in self._start.get("headers", [])
                        if name.lower() != b"content-length"
                    ]
                    response = Response(self._start["status"], self._body, headers)
                    self.rejection = RejectedError(response)
            case kind:
                raise RuntimeError(f"unexpected ASGI message {kind!r}")


async def serve_http(
    app: AsgiApp,
    job: Job,
    send: Send,
    *,
    path: str | None = None,
    body: bytes | None = None,
    state: dict[str, Any] | None = None,
) -> None:
    """Call an app for a job.

    Args:
        app: The app.
        job: The job.
        send: The ASGI ``send`` for the response.
        path: The path of the request. Defaults to that of the job.
        body: The body of the request. Defaults to that of the job.
        state: The state of the app's lifespan.
    """
    pending = [job.body if body is None else body]
    ended = Gate()
    # Callers of the queue do not wait for the response, and so they do not disconnect.
    if job.direct and not job.cancellation._on_open(ended.open):
        ended.open()

    async def receive() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send_until_end(message: Message) -> None:
        await send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            ended.open()

    await app(_make_scope(job, path=path, body=body, state=state), receive, send_until_end)


def _make_scope(
    job: Job,
    *,
    path: str | None = None,
    body: bytes | None = None,
    state: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the ASGI scope of a request: with the gateway's headers, without the caller's key."""
    path = job.path if path is None else path
    length = len(job.body if body is None else body)
    headers = {name: value for name, value in job.headers.items() if name not in _GATEWAY_HEADERS}
    headers |= {
        "content-length": str(length),
        "x-fal-request-id": job.request_id,
        "x-fal-endpoint": job.endpoint,
    }
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": "1.1",
        "method": job.method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode("ascii"),
        "root_path": "",
        "query_string": job.query.encode("latin-1"),
        "headers": raw_headers(headers),
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
        "state": {**(state or {}), "job": job},
    }
