"""A non-blocking byte stream over a socket, plain or TLS, the same on every event loop."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSAttribute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["CHUNK", "SocketStream"]

#: Maximum number of bytes that one call reads or writes.
CHUNK: Final = 65536

_NOT_YET: Final = (BlockingIOError, InterruptedError)


class SocketStream(ByteStream):
    """A non-blocking socket that is read and written at once if it is ready, or after a wait.

    No byte is buffered between the kernel (or OpenSSL) and the caller, and no task or callback runs
    while the stream is idle. So an idle stream can be inspected, and can be closed without a loop.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        # TLS may have to write before it can read, and the other way round.
        self._wait_for_read: Callable[[socket.socket], Awaitable[None]] = anyio.wait_readable
        self._wait_for_write: Callable[[socket.socket], Awaitable[None]] = anyio.wait_writable

    @property
    def is_tls(self) -> bool:
        """True for a TLS connection."""
        return self._tls is not None

    @property
    def ssl_object(self) -> ssl.SSLSocket | None:
        """The TLS socket; ``None`` for a plain connection."""
        return self._tls

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
        try:
            return self._socket.recv(max_bytes)
        except (*_NOT_YET, ssl.SSLWantReadError):
            self._wait_for_read = anyio.wait_readable
        except ssl.SSLWantWriteError:
            self._wait_for_read = anyio.wait_writable
        return None

    def receive_into_nowait(self, buffer: memoryview) -> int | None:
        """Receive into a buffer as `receive_nowait` does; return the number of bytes.

        Raises:
            OSError: The connection broke.
        """
        try:
            return self._socket.recv_into(buffer)
        except (*_NOT_YET, ssl.SSLWantReadError):
            self._wait_for_read = anyio.wait_readable
        except ssl.SSLWantWriteError:
            self._wait_for_read = anyio.wait_writable
        return None

    def send_nowait(self, item: bytes | memoryview) -> int:
        """Send without waiting; return the number of bytes that were sent.

        Raises:
            OSError: The connection broke.
        """
        try:
            return self._socket.send(item)
        except (*_NOT_YET, ssl.SSLWantWriteError):
            self._wait_for_write = anyio.wait_writable
        except ssl.SSLWantReadError:
            self._wait_for_write = anyio.wait_readable
        return 0

    async def wait_receivable(self) -> None:
        """Wait until `receive_nowait` gives data or an error, or until the stream is closed."""
        try:
            await self._wait_for_read(self._socket)
        except anyio.ClosedResourceError:
            return

    async def wait_sendable(self) -> None:
        """Wait until `send_nowait` sends data or gives an error, or until the stream is closed."""
        try:
            await self._wait_for_write(self._socket)
        except anyio.ClosedResourceError:
            return

    def has_unread_data(self) -> bool:
        """Return whether the peer has sent data, or has closed the connection.

        This takes one system call.
        """
        try:
            # The method of SSLSocket cannot peek.
            socket.socket.recv(self._socket, 1, socket.MSG_PEEK)
        except _NOT_YET:
            return self._tls is not None and self._tls.pending() > 0
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
        try:
            wrapped = context.wrap_socket(
                self._socket,
                server_hostname=server_hostname,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,
            )
        except BaseException:
            self.close()
            raise
        stream = SocketStream(wrapped)
        try:
            while True:
                try:
                    wrapped.do_handshake()
                except ssl.SSLWantReadError:
                    await anyio.wait_readable(wrapped)
                except ssl.SSLWantWriteError:
                    await anyio.wait_writable(wrapped)
                else:
                    return stream
        except BaseException:
            stream.close()
            raise

    async def aclose(self) -> None:
        """Close at once, and wake up the tasks that wait for the stream."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """Close at once, and wake up the tasks that wait for the stream."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()

    def close_without_loop(self) -> None:
        """Close at once, after the event loop has ended or in a forked process."""
        self._socket.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket, and the ALPN protocol of a TLS connection."""
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.raw_socket: lambda: self._socket
        }
        if self._tls is not None:
            attributes[TLSAttribute.alpn_protocol] = self._tls.selected_alpn_protocol
        return attributes


class _anyio_errors(contextlib.AbstractContextManager[None]):  # noqa: N801 -- used like a function
    """Raise the errors of anyio's streams."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            closed = error.errno == errno.EBADF
            raise (anyio.ClosedResourceError if closed else anyio.BrokenResourceError) from error
