"""The HTTP server: uvicorn's protocol in an event loop and thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import os
import socket
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fal_async.emulator._server.connection import Connection
from fal_async.emulator._server.websocket import WebSocketProtocol
from fal_async.emulator._tasks import cancel_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from fal_async.emulator._responses import App

__all__ = ["Server"]

T = TypeVar("T")

#: The maximum time to wait for the shutdown of the apps, in seconds.
_SHUTDOWN_TIMEOUT = 2.0
#: Seconds that an idle connection stays open: longer than clients of the platform keep theirs.
_KEEP_ALIVE = 75
_BACKLOG = 4096


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol. A request finds its `Connection` in the state of its scope."""

    def __init__(self, connection: Connection, *, compression: bool, **options: Any) -> None:
        state = {"connection": connection, "compression": compression}
        super().__init__(app_state=state, **options)
        self.access_log = False
        self._connection = connection

    def connection_made(  # type: ignore[override]  # a server's transports are of this kind
        self, transport: asyncio.Transport
    ) -> None:
        self._connection.connection_made(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.connection_lost()


class Server:
    """Serves an ASGI app from a thread of its own, until it is stopped.

    Args:
        app: The app.
        compression: Whether WebSockets may be compressed.
        certfile: The path of a certificate chain, to serve https. ``None`` serves http.
        keyfile: The path of the private key. ``None`` if `certfile` contains it.
    """

    def __init__(
        self,
        app: App,
        *,
        compression: bool,
        certfile: str | None = None,
        keyfile: str | None = None,
    ) -> None:
        self._compression = compression
        self.connections: set[Connection] = set()
        self._config = uvicorn.Config(
            app,
            http=_Protocol,
            ws=WebSocketProtocol,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            ssl_certfile=certfile,
            ssl_keyfile=keyfile,
        )
        self._config.load()
        self._state = ServerState()
        self._thread = threading.Thread(target=self._run, name="fal-emulator", daemon=True)
        self._ready = threading.Event()
        self._stopping = asyncio.Event()
        self._error: BaseException | None = None

    def start(self, host: str, port: int, cleanup: Callable[[], Awaitable[None]]) -> int:
        """Listen, and return the port.

        Args:
            host: The address to listen on.
            port: The port to listen on; 0 for a free one.
            cleanup: Awaited in the event loop before the connections are closed.
        """
        _raise_file_limit()
        self._socket = _listen(host, port)
        self._cleanup = cleanup
        bound_port: int = self._socket.getsockname()[1]
        try:
            import uvloop  # an optional dependency
        except ImportError:
            self._loop = asyncio.new_event_loop()
        else:
            self._loop = uvloop.new_event_loop()
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._socket.close()
            raise self._error
        return bound_port

    def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Run a coroutine in the event loop and return its result.

        Returns:
            The result, or ``None`` if the server has stopped.

        Raises:
            RuntimeError: The caller is the event loop's own thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("an async runner cannot wait for the emulator that runs it")
        coroutine = function()
        # The context of the caller may say that the running event loop is trio's.
        context = contextvars.Context()
        try:
            return context.run(asyncio.run_coroutine_threadsafe, coroutine, self._loop).result()
        except (RuntimeError, concurrent.futures.CancelledError):
            coroutine.close()
            if not self._loop.is_closed() and not self._stopping.is_set():
                raise
            return None

    def stop(self) -> None:
        """Close all connections, cancel all tasks, and end the thread."""
        with contextlib.suppress(RuntimeError):  # the event loop is closed already
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        except BaseException as error:  # noqa: BLE001 -- raised again on the waiting thread
            self._error = error
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        def make_protocol() -> _Protocol:
            return _Protocol(
                Connection(self.connections),
                compression=self._compression,
                config=self._config,
                server_state=self._state,
                _loop=self._loop,
            )

        main = asyncio.current_task()
        listener = await self._loop.create_server(
            make_protocol, sock=self._socket, backlog=_BACKLOG, ssl=self._config.ssl
        )
        self._ready.set()
        await self._stopping.wait()
        listener.close()
        await asyncio.wait([asyncio.ensure_future(self._cleanup())], timeout=_SHUTDOWN_TIMEOUT)
        for connection in list(self.connections):
            connection.abort()
        await cancel_tasks(lambda: asyncio.all_tasks() - {main})


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only if the protocol is named: 40 ms per response.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _raise_file_limit() -> None:
    """Raise the limit of open files, and so of connections, as far as this process may."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
