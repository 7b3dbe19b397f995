"""ASGI apps as runners: a FastAPI app, say, gets the whole platform around it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from fal_async.emulator._asgi_sockets import serve_app
from fal_async.emulator._gate import Gate
from fal_async.emulator._replies import raw_headers

if TYPE_CHECKING:
    from fal_async.emulator._job import Job
    from fal_async.emulator._record import Route
    from fal_async.emulator._replies import Message, Send
    from fal_async.emulator._websocket import WebSocket

AsgiApp: TypeAlias = Callable[..., Any]

#: In this version of the specification apps learn of a caller's hanging up by receiving it.
_ASGI = {"version": "3.0", "spec_version": "2.3"}
#: Headers between the caller and the gateway, which an app does not see.
_OF_THE_GATEWAY = frozenset({"authorization", "connection", "content-length", "transfer-encoding"})
#: Seconds that an app has for its shutdown.
_SHUTDOWN = 1.0

logger = logging.getLogger("fal_async.emulator")


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
