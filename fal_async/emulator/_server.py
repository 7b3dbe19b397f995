"""The HTTP server: uvicorn's protocol on a loop in a thread of its own, with a hand on each socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from fal_async.emulator._replies import Message, Receive, Send

    App = Callable[[Message, Receive, Send], Awaitable[None]]

#: How long closing waits for what runs in the loop, in seconds.
_GRACE = 2.0
#: Seconds that an idle connection is kept open, longer than clients of the platform keep theirs.
_KEEP_ALIVE = 75
_BACKLOG = 4096
_STARTUP = 10.0
#: SO_LINGER with a time of zero: closing the socket sends a reset.
_LINGER = struct.pack("ii", 1, 0)


class Connection:
    """One connection of a client: what can be done to it below HTTP."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()
        self._callbacks: list[Callable[[], object]] = []

    def made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def lost(self) -> None:
        self._lost.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    @property
    def is_lost(self) -> bool:
        """Whether the client or the server has closed it."""
        return self._lost.is_set()

    @contextlib.contextmanager
    def when_lost(self, callback: Callable[[], object]) -> Iterator[None]:
        """Call back if the connection is lost in the course of this block."""
        self._callbacks.append(callback)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

    async def end(self, last_words: bytes = b"", *, reset: bool = False) -> None:
        """Send these bytes as they are, then close or reset the connection, and wait until it is gone."""
        transport = self._transport
        if transport is None or self.is_lost:
            return
        if last_words:
            transport.write(last_words)
        if reset:
            while transport.get_write_buffer_size() and not self.is_lost:
                await asyncio.sleep(0.001)  # a reset would discard what has not left yet
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _LINGER
            )
            transport.abort()
        else:
            transport.close()
        await self._lost.wait()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol; requests find their `Connection` in the state of their scope."""

    def __init__(
        self, connections: set[Connection], connection: Connection, **options: Any
    ) -> None:
        super().__init__(app_state={"connection": connection}, **options)
        self.access_log = False
        self._connections_open = connections
        self._connection = connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._connections_open.add(self._connection)
        self._connection.made(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connections_open.discard(self._connection)
        self._connection.lost()


class Server:
    """Serves an ASGI app from a thread of its own, until it is stopped."""

    def __init__(
        self, app: App, *, certfile: str | None = None, keyfile: str | None = None
    ) -> None:
        self.connections: set[Connection] = set()
        self.loop: asyncio.AbstractEventLoop = _new_loop()
        self._app = app
        self._certfile = certfile
        self._keyfile = keyfile
        self._state = ServerState()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fal-emulator", daemon=True)
        self._stop = asyncio.Event()
        self._socket: socket.socket | None = None
        self._cleanup: Callable[[], Awaitable[None]] | None = None

    def start(self, host: str, port: int, cleanup: Callable[[], Awaitable[None]]) -> int:
        """Listen, and return the port.

        Args:
            host: The address to listen at.
            port: The port to listen at; 0 for a free one.
            cleanup: Awaited in the loop before the connections are closed.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._socket = listener
        self._cleanup = cleanup
        raise_file_limit()
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            listener.close()
            raise self._failure
        bound: int = listener.getsockname()[1]
        return bound

    def stop(self) -> None:
        """Close all connections, cancel whatever runs, and end the thread."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                self.loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that starts the server
            self._failure = error
            self._ready.set()
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()

    async def _serve(self) -> None:
        listener = await self.loop.create_server(
            self._protocol_factory(), sock=self._socket, backlog=_BACKLOG
        )
        self._ready.set()
        await self._stop.wait()
        listener.close()
        await self._close()

    def _protocol_factory(self) -> Callable[[], asyncio.Protocol]:
        config = uvicorn.Config(
            self._app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
        )
        config.load()

        def protocol() -> asyncio.Protocol:
            return _Protocol(
                self.connections,
                Connection(),
                config=config,
                server_state=self._state,
                _loop=self.loop,
            )

        return protocol

    async def _close(self) -> None:
        if self._cleanup is not None:
            await asyncio.wait([asyncio.ensure_future(self._cleanup())], timeout=_GRACE)
        for connection in list(self.connections):
            connection.abort()
        deadline = self.loop.time() + _GRACE
        while (tasks := asyncio.all_tasks() - {asyncio.current_task()}) and (
            self.loop.time() < deadline
        ):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=_GRACE / 10)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def raise_file_limit() -> None:
    """Allow this process as many open files, and so connections, as it may allow itself."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
