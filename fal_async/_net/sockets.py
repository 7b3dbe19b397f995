"""A non-blocking byte stream over a socket, plain or TLS, the same on every event loop."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSAttribute

from fal_async._net.asyncio_reader import CHUNK, make_reader
from fal_async._net.timers import call_later, find_call_later
from fal_async._net.tls import NOT_YET, TLSSocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fal_async._net.timers import Timer

__all__ = ["CHUNK", "SocketStream"]


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
        self._reader = make_reader(self._io)
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
        except (*NOT_YET, ssl.SSLWantReadError):
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
        except (*NOT_YET, ssl.SSLWantReadError):
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
        except (*NOT_YET, ssl.SSLWantWriteError):
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
        except NOT_YET:
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
    if sock.fileno() < 0:
        await checkpoint()
        return True
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


class _anyio_errors(contextlib.AbstractContextManager[None]):  # noqa: N801 -- used like a function
    """Raise the errors of anyio's streams."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            closed = error.errno == errno.EBADF
            raise (anyio.ClosedResourceError if closed else anyio.BrokenResourceError) from error
