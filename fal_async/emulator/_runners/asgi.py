"""WebSockets of ASGI apps."""

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
    from collections.abc import Awaitable

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._responses import Message, RawHeaders, Send
    from fal_async.emulator._server.websocket import WebSocket

__all__ = []

logger = logging.getLogger("fal_async.emulator")


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
        self.refusal: RejectedError | None = None

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
                self.refusal = RejectedError(error_response(403, "Forbidden"))
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
            self.refusal = RejectedError(Response(self._start["status"], self._body, headers))


AsgiApp: TypeAlias = Callable[..., Any]


#: In this version of the specification apps learn of a caller's hanging up by receiving it.
_ASGI = {"version": "3.0", "spec_version": "2.3"}


#: Headers between the caller and the gateway, which an app does not see.
_OF_THE_GATEWAY = frozenset({"authorization", "connection", "content-length", "transfer-encoding"})


#: Seconds that an app has for its shutdown.
_SHUTDOWN = 1.0


class AsgiRunner:
    """An ASGI app, called in this process."""

    streams = False
    route: Route = "socket"

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._lifespan: _Lifespan | None = None

    async def __call__(self, job: Job, send: Send) -> None:
        """Answer as the app does."""
        state = await self._started()
        await serve_http(self._app, job, send, state=state)

    async def serve(self, job: Job, websocket: WebSocket) -> None:
        """Have the app serve a WebSocket; a crash of it cuts the connection."""
        state = await self._started()
        await serve_app(self._app, http_scope(job, state=state), websocket)

    async def cancel(self, job: Job) -> bool:
        """Tell the app, at the job's path with ``/cancel`` appended; if it has none, it goes on."""
        path = f"{job.path.rstrip('/')}/cancel"
        state = await self._started()
        try:
            await serve_http(self._app, job, _ignore, path=path, body=b"", state=state)
        except (Exception, SystemExit, KeyboardInterrupt):
            logger.debug("the app failed to cancel request %s", job.request_id, exc_info=True)
        return False

    async def aclose(self) -> None:
        """Run the app's shutdown."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.shut_down()

    async def _started(self) -> dict[str, Any]:
        if self._lifespan is None:
            self._lifespan = _Lifespan(self._app)
        return await self._lifespan.start_up()


class _Lifespan:
    """The app's own startup and shutdown, around all its jobs."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._started = asyncio.Event()
        self._failure: str | None = None
        self._task = asyncio.create_task(self._run())

    async def start_up(self) -> dict[str, Any]:
        """Wait until the app has started; gives what it keeps for its requests."""
        await self._started.wait()
        if self._failure is not None:
            raise RuntimeError(f"the app failed to start: {self._failure}")
        return self._state

    async def shut_down(self) -> None:
        """Have the app shut down, if it does so in time."""
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait([self._task], timeout=_SHUTDOWN)
        self._task.cancel()

    async def _run(self) -> None:
        self._inbox.put_nowait({"type": "lifespan.startup"})
        scope = {"type": "lifespan", "asgi": _ASGI, "state": self._state}
        try:
            await self._app(scope, self._inbox.get, self._send)
        except (Exception, SystemExit, KeyboardInterrupt):
            logger.debug("the app has no lifespan", exc_info=True)
        finally:
            self._started.set()

    async def _send(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            self._failure = message.get("message") or "no reason given"
        self._started.set()


async def serve_http(
    app: AsgiApp,
    job: Job,
    send: Send,
    *,
    path: str | None = None,
    body: bytes | None = None,
    state: dict[str, Any] | None = None,
) -> None:
    """Have an app answer a call, at its own path and with its own body unless others are given."""
    pending = [job.body if body is None else body]
    over = Gate()
    # Callers of the queue do not wait, and so they do not hang up.
    if job.direct and not job.cancellation.when_open(over.open):
        over.open()

    async def receive() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        await over.wait()
        return {"type": "http.disconnect"}

    async def answer(message: Message) -> None:
        await send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            over.open()

    await app(http_scope(job, path=path, body=body, state=state), receive, answer)


def http_scope(
    job: Job,
    *,
    path: str | None = None,
    body: bytes | None = None,
    state: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The call as the app sees it: with what the gateway adds, and without the caller's key."""
    path = job.path if path is None else path
    length = len(job.body if body is None else body)
    headers = {name: value for name, value in job.headers.items() if name not in _OF_THE_GATEWAY}
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


async def _ignore(message: Message) -> None:
    """Whether the app obeys shows in the job's own result."""
