"""A byte stream over one socket, plain or TLS, the same on every event loop."""

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

#: Bytes asked for in one read and offered in one write.
CHUNK: Final = 65536

_NOT_YET: Final = (BlockingIOError, InterruptedError)


class SocketStream(ByteStream):
    """Reads and writes a non-blocking socket at once where it is ready, and waits where it is not.

    No byte is buffered between the kernel (or OpenSSL) and the caller, and no task or callback runs
    while the stream is idle. So an idle stream can be looked at, and can be dropped without a loop.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        # Which way TLS wants to go is not always the way of the caller.
        self._wait_for_read: Callable[[socket.socket], Awaitable[None]] = anyio.wait_readable
        self._until_sendable: Callable[[socket.socket], Awaitable[None]] = anyio.wait_writable

    @property
    def is_tls(self) -> bool:
        """Whether what is sent is encrypted."""
        return self._tls is not None

    @property
    def ssl_object(self) -> ssl.SSLSocket | None:
        """What knows of TLS; ``None`` for a plain connection."""
        return self._tls

    @property
    def addresses(self) -> tuple[Any, Any]:
        """The addresses of this end and of the peer; ``None`` for those of a broken connection."""
        try:
            return self._socket.getsockname(), self._socket.getpeername()
        except OSError:
            return None, None

    def receive_nowait(self, max_bytes: int = CHUNK) -> bytes | None:
        """What has arrived; ``b""`` at the end of the stream, ``None`` when nothing has yet.

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

    def receive_into_nowait(self, room: memoryview) -> int | None:
        """As `receive_nowait`, to a place that has been made; the answer is how many bytes came.

        Raises:
            OSError: The connection broke.
        """
        try:
            return self._socket.recv_into(room)
        except (*_NOT_YET, ssl.SSLWantReadError):
            self._wait_for_read = anyio.wait_readable
        except ssl.SSLWantWriteError:
            self._wait_for_read = anyio.wait_writable
        return None

    def send_nowait(self, item: bytes | memoryview) -> int:
        """Send what goes out at once; the answer is how many bytes that was.

        Raises:
            OSError: The connection broke.
        """
        try:
            return self._socket.send(item)
        except (*_NOT_YET, ssl.SSLWantWriteError):
            self._until_sendable = anyio.wait_writable
        except ssl.SSLWantReadError:
            self._until_sendable = anyio.wait_readable
        return 0

    async def wait_receivable(self) -> None:
        """Wait until `receive_nowait` has something to say, if only that the stream was closed."""
        try:
            await self._wait_for_read(self._socket)
        except anyio.ClosedResourceError:
            return

    async def wait_sendable(self) -> None:
        """Wait until `send_nowait` has something to say, if only that the stream was closed."""
        try:
            await self._until_sendable(self._socket)
        except anyio.ClosedResourceError:
            return

    def is_quiet(self) -> bool:
        """Whether the peer has sent nothing, not even an end; takes one system call."""
        try:
            # Of socket.socket, since that of SSLSocket does not peek.
            socket.socket.recv(self._socket, 1, socket.MSG_PEEK)
        except _NOT_YET:
            return self._tls is None or self._tls.pending() == 0
        except OSError:
            return False
        return False

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """Receive at least one byte, as `anyio.abc.ByteReceiveStream` says."""
        await checkpoint()
        with _anyio_errors():
            while (received := self.receive_nowait(max_bytes)) is None:
                await self.wait_receivable()
        if not received:
            raise anyio.EndOfStream
        return received

    async def send(self, item: bytes | memoryview) -> None:
        """Send everything, as `anyio.abc.ByteSendStream` says."""
        await checkpoint()
        rest = memoryview(item)
        with _anyio_errors():
            while rest:
                sent = self.send_nowait(rest[:CHUNK])
                if not sent:
                    await self.wait_sendable()
                rest = rest[sent:]

    async def send_eof(self) -> None:
        """End the sending half of a plain connection; TLS has no halves."""
        if self._tls is not None:
            raise NotImplementedError("a TLS stream cannot be half-closed")
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        await checkpoint()

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> SocketStream:
        """Make the TLS handshake; the result replaces this stream, which is closed on failure.

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
            await stream._do_handshake(wrapped)
        except BaseException:
            stream.close()
            raise
        return stream

    async def _do_handshake(self, sock: ssl.SSLSocket) -> None:
        while True:
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                await anyio.wait_readable(sock)
            except ssl.SSLWantWriteError:
                await anyio.wait_writable(sock)
            else:
                return

    async def aclose(self) -> None:
        """Close at once, waking up whoever waits for the stream."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """Close at once, waking up whoever waits for the stream."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()

    def close_without_loop(self) -> None:
        """Close at once, outside of the event loop, which is gone or another process's."""
        self._socket.close()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """The socket, and for TLS the chosen protocol."""
        attributes: dict[Any, Callable[[], Any]] = {
            SocketAttribute.raw_socket: lambda: self._socket
        }
        if self._tls is not None:
            attributes[TLSAttribute.alpn_protocol] = self._tls.selected_alpn_protocol
        return attributes


class _anyio_errors(contextlib.AbstractContextManager[None]):  # noqa: N801 -- reads as a statement
    """Raise what anyio's streams raise."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            closed = error.errno == errno.EBADF
            raise (anyio.ClosedResourceError if closed else anyio.BrokenResourceError) from error
