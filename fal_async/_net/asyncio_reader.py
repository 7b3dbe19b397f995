"""`AsyncioReader`: waits for data of a socket on the event loops of asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import weakref
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from fal_async._net.running_loop import running_loop
from fal_async._net.tls import NOT_YET

if TYPE_CHECKING:
    import socket

    from fal_async._net.tls import TLSSocket

__all__ = ["CHUNK", "AsyncioReader", "make_reader"]

#: Maximum number of bytes that one call reads or writes.
CHUNK: Final = 65536


def make_reader(sock: socket.socket | TLSSocket) -> AsyncioReader | None:
    """Make the reader of a socket; ``None`` for event loops that cannot watch sockets for it."""
    try:
        loop = running_loop()
    except RuntimeError:
        return None
    if (
        isinstance(loop, asyncio.AbstractEventLoop)
        # The proactor of Windows does not have the method.
        and type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader
    ):
        return AsyncioReader(sock, loop)
    return None


class AsyncioReader:
    """Waits for a socket on an event loop of asyncio, and receives what ends the wait.

    The loop watches the socket from one wait to the next, which saves two system calls and many
    function calls for each response. It stops when data arrives that no task waits for. That data
    stays in the kernel until the next wait. One timer serves the timeouts of many waits.

    The loop refers to this object, which must not refer to its stream: a stream that is dropped is
    freed.

    Attributes:
        received: The data that ended a wait, or an error; ``b""`` at the end of the stream, and
            ``None`` if nothing was received, or if the caller has it.
    """

    def __init__(self, sock: socket.socket | TLSSocket, loop: asyncio.AbstractEventLoop) -> None:
        self.received: bytes | OSError | None = None
        self._socket = sock
        self._loop = weakref.ref(loop)  # connections must not keep a loop that was dropped
        self._descriptor = sock.fileno()
        self._is_watched = False
        # After a reset, uvloop stops watching without saying so.
        self._keeps_watching = isinstance(loop, asyncio.BaseEventLoop)
        self._waiter: asyncio.Future[bool] | None = None
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_end = math.inf  # the deadline, or before

    async def wait(self, timeout: float | None) -> bool:
        """Wait; see `SocketStream.wait_receivable`."""
        if self.received is not None:
            await checkpoint()
            return True
        if self._waiter is not None:
            raise anyio.BusyResourceError("reading from")
        if self._socket.fileno() < 0:
            return True
        self._watch()
        loop = asyncio.get_running_loop()
        if timeout is None:
            self._deadline = math.inf
        else:
            self._deadline = loop.time() + timeout
            if self._timer is None or self._timer_end > self._deadline:
                self._start_timer()
        self._waiter = loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _start_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_end = self._deadline
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if asyncio.get_running_loop().time() >= self._deadline:
            self._waiter.set_result(False)
        elif self._deadline < math.inf:
            self._start_timer()  # another wait has begun since

    def _receive(self) -> None:
        if self._waiter is None or self._waiter.done():
            self._unwatch()
            return
        if not self._keeps_watching:
            self._unwatch()
        try:
            self.received = self._socket.recv(CHUNK)
        except (*NOT_YET, ssl.SSLWantReadError):
            self._watch()  # it was a part of a TLS record
            return
        except ssl.SSLWantWriteError:
            pass  # the caller will find out
        except OSError as error:
            self.received = error
        self._waiter.set_result(True)

    def _watch(self) -> None:
        if not self._is_watched:
            asyncio.get_running_loop().add_reader(self._descriptor, self._receive)
            self._is_watched = True

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            asyncio.get_running_loop().remove_reader(self._descriptor)

    def take(self, max_bytes: int) -> bytes:
        """Return what was received, up to a number of bytes, or raise its error."""
        received, self.received = self.received, None
        if isinstance(received, OSError):
            raise received
        assert received is not None  # noqa: S101 -- checked by the caller
        if len(received) > max_bytes:
            self.received = received[max_bytes:]
        return received[:max_bytes]

    def close(self) -> None:
        """Stop, and wake up the task that waits."""
        self.stop()
        self.received = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def stop(self) -> None:
        """Stop watching the socket, unless its loop has ended or belongs to another process."""
        running = asyncio._get_running_loop()
        if running is not None and running is self._loop():
            if self._timer is not None:
                self._timer.cancel()
            self._unwatch()
        self._timer = None
        self._is_watched = False

    def stop_soon(self) -> None:
        """Stop watching the socket of a stream that was dropped, in any thread."""
        loop = self._loop()
        if loop is not None and (self._is_watched or self._timer is not None):
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self.stop)
