"""A non-blocking byte stream over a socket, plain or TLS, the same on every event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import select
import socket
import ssl
import weakref
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSAttribute

from fal_async._net.running_loop import running_loop
from fal_async._net.timers import call_later, find_call_later
from fal_async._net.tls import TLSSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fal_async._net.timers import Timer

__all__ = ["CHUNK", "SocketStream"]

#: Maximum number of bytes that one call reads or writes.
CHUNK: Final = 65536

_NOT_YET: Final = (BlockingIOError, InterruptedError)


class SocketStream(ByteStream):
    """A non-blocking socket that is read and written at once if it is ready, or after a wait.

    Nothing is received unless the caller asks or waits for it. So an idle stream can be inspected,
    and can be closed without a loop.

    Args:
        sock: The socket.
        tls: The TLS connection over the socket, after the handshake; ``None`` for a plain one.
    """

    def __init__(self, sock: socket.socket, tls: TLSSocket | None = None) -> None:
        self._socket = sock
        self._tls = tls
        self._io: socket.socket | TLSSocket = sock if tls is None else tls
        self._reader = _make_reader(self._io)
        self._call_later = call_later if self._reader else find_call_later()
        self._poller = None
        if hasattr(select, "poll"):  # not on Windows
            self._poller = select.poll()
            self._poller.register(sock, select.POLLIN)
        # TLS may have to write before it can read, and the other way round.
        self._writes_first = False
        self._reads_first = False

    def __del__(self) -> None:
        if self._reader is not None:
            self._reader.stop_soon()

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The state of the TLS connection; ``None`` for a plain one."""
        return None if self._tls is None else self._tls.ssl_object

    @property
    def addresses(self) -> tuple[Any, Any]:
        """The local address and that of the peer; ``None`` for both if the connection broke."""
        try:
            return self._socket.getsockname(), self._socket.getpeername()
        except OSError:
            return None, None

    def receive_nowait(self, max_bytes: int = CHUNK) -> bytes | None:
        """Receive without waiting; ``b""`` is the end of the stream, ``None`` if nothing arrived.

        Raises:
            OSError: The connection broke.
        """
        if self._reader is not None and self._reader.received is not None:
            return self._reader.take(max_bytes)
        try:
            return self._io.recv(max_bytes)
        except (*_NOT_YET, ssl.SSLWantReadError):
            self._writes_first = False
        except ssl.SSLWantWriteError:
            self._writes_first = True
        return None

    def receive_into_nowait(self, buffer: memoryview) -> int | None:
        """Receive into a buffer as `receive_nowait` does; return the number of bytes.

        Raises:
            OSError: The connection broke.
        """
        if self._reader is not None and self._reader.received is not None:
            received = self._reader.take(len(buffer))
            buffer[: len(received)] = received
            return len(received)
        try:
            return self._io.recv_into(buffer)
        except (*_NOT_YET, ssl.SSLWantReadError):
            self._writes_first = False
        except ssl.SSLWantWriteError:
            self._writes_first = True
        return None

    def send_nowait(self, item: bytes | memoryview) -> int:
        """Send without waiting; return the number of bytes that were sent.

        Raises:
            OSError: The connection broke.
        """
        try:
            return self._io.send(item)
        except (*_NOT_YET, ssl.SSLWantWriteError):
            self._reads_first = False
        except ssl.SSLWantReadError:
            self._reads_first = True
        return 0

    async def wait_receivable(self, timeout: float | None = None) -> bool:
        """Wait until `receive_nowait` gives data or an error, or until the stream is closed.

        Args:
            timeout: The longest time to wait, in seconds; ``None`` disables the timeout.

        Returns:
            Whether the wait ended in time.
        """
        if self._tls is not None and self._tls.has_data:
            await checkpoint()
            return True
        if self._reader is not None and not self._writes_first:
            return await self._reader.wait(timeout)
        ready = anyio.wait_writable if self._writes_first else anyio.wait_readable
        return await _wait(ready, self._socket, timeout, self._call_later)

    async def wait_sendable(self) -> None:
        """Wait until `send_nowait` sends data or gives an error, or until the stream is closed."""
        if self._reads_first:
            await self.wait_receivable()
        else:
            await _wait(anyio.wait_writable, self._socket)

    def has_unread_data(self) -> bool:
        """Return whether the peer has sent data, or has closed the connection.

        This takes one system call.
        """
        if self._reader is not None and self._reader.received is not None:
            return True
        if self._tls is not None and self._tls.has_data:
            return True
        if self._poller is not None:  # an exception of the other way costs six times as much
            return self._socket.fileno() < 0 or bool(self._poller.poll(0))
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except _NOT_YET:
            return False
        except OSError:
            return True
        return True

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """Receive at least one byte; see `anyio.abc.ByteReceiveStream`."""
        await checkpoint()
        with _anyio_errors():
            while (received := self.receive_nowait(max_bytes)) is None:
                await self.wait_receivable()
        if not received:
            raise anyio.EndOfStream
        return received

    async def send(self, item: bytes | memoryview) -> None:
        """Send all bytes; see `anyio.abc.ByteSendStream`."""
        await checkpoint()
        if self._tls is not None:
            self._tls.abandon_send()  # of a task that was cancelled
        data = memoryview(item)
        with _anyio_errors():
            while data:
                sent = self.send_nowait(data[:CHUNK])
                if not sent:
                    await self.wait_sendable()
                data = data[sent:]

    async def send_eof(self) -> None:
        """Close the sending half of a plain connection. TLS does not support this."""
        if self._tls is not None:
            raise NotImplementedError("a TLS stream cannot be half-closed")
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        await checkpoint()

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> SocketStream:
        """Do the TLS handshake; the result replaces this stream, which is closed on failure.

        Raises:
            OSError: The handshake failed, `ssl.SSLError` included.
        """
        if self._reader is not None:
            self._reader.stop()
            if self._reader.received is not None:
                self.close()
                raise OSError("the peer has sent data before the TLS handshake")
        try:
            tls = TLSSocket(self._socket, context, server_hostname)
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    await anyio.wait_readable(self._socket)
                except ssl.SSLWantWriteError:
                    await anyio.wait_writable(self._socket)
                else:
                    break
        except BaseException:
            self.close()
            raise
        return SocketStream(self._socket, tls)

    async def aclose(self) -> None:
        """Close at once, and wake up the tasks that wait for the stream."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """Close at once, and wake up the tasks that wait for the stream."""
        if self._socket.fileno() >= 0:
            if self._reader is not None:
                self._reader.close()
            anyio.notify_closing(self._socket)
            self._io.close()

    def close_without_loop(self) -> None:
        """Close at once, when the event loop ends or has ended, or in a forked process."""
        if self._reader is not None:
            self._reader.stop()
        self._io.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket, and the ALPN protocol of a TLS connection."""
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.raw_socket: lambda: self._socket
        }
        if self._tls is not None:
            attributes[TLSAttribute.alpn_protocol] = self._tls.ssl_object.selected_alpn_protocol
        return attributes


async def _wait(
    ready: Callable[[socket.socket], Awaitable[None]],
    sock: socket.socket,
    timeout: float | None = None,
    later: Callable[[float, Callable[[], object]], Timer] = call_later,
) -> bool:
    """Wait until a socket is ready or closed; return whether the wait ended in time."""
    is_late = False

    def end() -> None:
        nonlocal is_late
        is_late = True
        anyio.notify_closing(sock)  # wakes up the tasks that wait for the socket

    timer = None if timeout is None else later(timeout, end)
    try:
        await ready(sock)
    except anyio.ClosedResourceError:
        return not is_late
    finally:
        if timer is not None:
            timer.cancel()
    return True


def _make_reader(sock: socket.socket | TLSSocket) -> _AsyncioReader | None:
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
        return _AsyncioReader(sock, loop)
    return None


class _AsyncioReader:
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
        except (*_NOT_YET, ssl.SSLWantReadError):
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


class _anyio_errors(contextlib.AbstractContextManager[None]):  # noqa: N801 -- used like a function
    """Raise the errors of anyio's streams."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            closed = error.errno == errno.EBADF
            raise (anyio.ClosedResourceError if closed else anyio.BrokenResourceError) from error
