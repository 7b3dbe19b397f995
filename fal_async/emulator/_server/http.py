"""The HTTP server: uvicorn's protocol, in a loop and thread of its own, with a hand on sockets."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from fal_async.emulator._server.websocket import UpgradedProtocol
from fal_async.emulator._tasks import cancel_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from fal_async.emulator._responses import Message, Receive, Send

    App = Callable[[Message, Receive, Send], Awaitable[None]]

T = TypeVar("T")

#: How long closing waits for the apps behind the endpoints, in seconds.
_GRACE = 2.0
#: Seconds that an idle connection stays open: longer than clients of the platform keep theirs.
_KEEP_ALIVE = 75
_BACKLOG = 4096
#: How often a reset looks whether what was sent before it has arrived, and seconds in between.
_FLUSH_STEPS = 1000
_FLUSH_STEP = 0.001
#: The socket option SO_LINGER with a time of zero: to close the socket is to reset it.
_LINGER = struct.pack("ii", 1, 0)


class Connection:
    """A client's connection: what can be done to it below HTTP."""

    def __init__(self, peers: set[Connection]) -> None:
        self._peers = peers
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()
        self._callbacks: list[Callable[[], object]] = []

    @property
    def is_closed(self) -> bool:
        """Whether the client or the server has closed it."""
        return self._lost.is_set()

    @contextlib.contextmanager
    def on_disconnect(self, callback: Callable[[], object]) -> Generator[None]:
        """Call back if the connection is lost in the course of this block."""
        if self.is_closed:
            callback()
        self._callbacks.append(callback)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

    async def end(self, final_bytes: bytes = b"", *, reset: bool = False) -> None:
        """Send these bytes as they are, close or reset the connection, and wait for its end."""
        transport = self._transport
        if transport is None or self.is_closed:
            return
        if final_bytes:
            transport.write(final_bytes)
        if reset:
            await self._flush(transport)
            peer = transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            transport.abort()
        else:
            transport.close()
        await self._lost.wait()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_lost(self) -> None:
        """Wait until the client or the server has closed it."""
        await self._lost.wait()

    def made(self, transport: asyncio.Transport) -> None:
        """Note that the client has come."""
        self._transport = transport
        self._peers.add(self)

    def lost(self) -> None:
        """Note that it has been closed."""
        self._peers.discard(self)
        self._lost.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    async def _flush(self, transport: asyncio.Transport) -> None:
        # A reset discards what has not arrived, and nothing tells when it has.
        for _ in range(_FLUSH_STEPS):
            if self.is_closed or not _in_flight(transport):
                break
            await asyncio.sleep(_FLUSH_STEP)


def _in_flight(transport: asyncio.Transport) -> int:
    """How many bytes have been sent and not arrived: in this process, and in the kernel."""
    unsent = transport.get_write_buffer_size()
    try:
        # Only some systems have them.
        import fcntl
        import termios

        queue = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (ImportError, OSError):  # only some systems tell
        return unsent
    return unsent + int.from_bytes(queue, sys.byteorder)


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol; a request finds its `HTTPConnection` in the state of its scope."""

    def __init__(self, connection: Connection, *, compression: bool, **options: Any) -> None:
        state = {"connection": connection, "compression": compression}
        super().__init__(app_state=state, **options)
        self.access_log = False
        self._connection = connection

    def connection_made(  # type: ignore[override]  # a server's transports are of this kind
        self, transport: asyncio.Transport
    ) -> None:
        self._connection.made(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connection.lost()


class Server:
    """Serves an ASGI app from a thread of its own, until it is stopped.

    Args:
        app: The app.
        compression: Whether WebSockets may be compressed.
        certfile: A certificate chain, to serve https; ``None`` serves http.
        keyfile: The certificate's private key; ``None`` when it stands in `certfile`.
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
            ws=UpgradedProtocol,
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
        self._failure: BaseException | None = None

    def start(self, host: str, port: int, cleanup: Callable[[], Awaitable[None]]) -> int:
        """Listen, and return the port.

        Args:
            host: The address to listen at.
            port: The port to listen at; 0 for a free one.
            cleanup: Awaited in the loop before the connections are closed.
        """
        _raise_file_limit()
        self._socket = _listener(host, port)
        self._cleanup = cleanup
        bound: int = self._socket.getsockname()[1]
        self._loop = _new_loop()
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._socket.close()
            raise self._failure
        return bound

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Run a coroutine in the loop and wait for it; ``None`` once the server has stopped.

        Raises:
            RuntimeError: This is the thread of the loop, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("an async runner cannot wait for the emulator that runs it")
        coroutine = work()
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        except (RuntimeError, concurrent.futures.CancelledError):
            coroutine.close()
            return None

    def stop(self) -> None:
        """Close all connections, cancel whatever runs, and end the thread."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed already
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        except BaseException as error:  # noqa: BLE001 -- raised again on the waiting thread
            self._failure = error
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        own = asyncio.current_task()
        listener = await self._loop.create_server(
            self._new_protocol, sock=self._socket, backlog=_BACKLOG, ssl=self._config.ssl
        )
        self._ready.set()
        await self._stopping.wait()
        listener.close()
        await asyncio.wait([asyncio.ensure_future(self._cleanup())], timeout=_GRACE)
        for connection in list(self.connections):
            connection.abort()
        await cancel_tasks(lambda: asyncio.all_tasks() - {own})

    def _new_protocol(self) -> _Protocol:
        return _Protocol(
            Connection(self.connections),
            compression=self._compression,
            config=self._config,
            server_state=self._state,
            _loop=self._loop,
        )


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named: 40 ms a response.
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


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # an optional dependency
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _raise_file_limit() -> None:
    """Allow this process as many open files, and so connections, as it may allow itself."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
