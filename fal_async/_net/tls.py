"""TLS over a non-blocking socket, with few system calls."""

from __future__ import annotations

import contextlib
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["NOT_YET", "TLSSocket"]

T = TypeVar("T")

#: The errors of a socket that is not ready.
NOT_YET: Final = (BlockingIOError, InterruptedError)
#: Maximum payload of one TLS record, in bytes (RFC 8446, section 5.1).
TLS_RECORD: Final = 16384
#: Maximum number of bytes that are encrypted for one write.
MAX_WRITE: Final = 7 * TLS_RECORD
#: Maximum number of bytes of one read. The allocator needs no system call for this size.
MAX_READ: Final = 122880


class TLSSocket:
    """The client's side of a TLS connection over a non-blocking socket.

    It has the methods and errors of `ssl.SSLSocket`, which takes two system calls to receive a
    record of 16 kB and one to send it. Here OpenSSL reads from memory what one system call has
    received, and writes to memory what one system call sends.

    Args:
        sock: A connected, non-blocking socket.
        context: The context of the handshake.
        server_hostname: The name or address that the certificate of the peer must match.

    Attributes:
        ssl_object: The state of the TLS connection.
        has_data: Whether `recv` has something to do that does not depend on the socket.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: str) -> None:
        self._socket = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object: ssl.SSLObject = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._read: Callable[..., Any] = self.ssl_object.read
        self._write = self.ssl_object.write
        self.has_data: bool = False
        self._failure: OSError | None = None  # of a record after those that were returned
        self._unsent = b""  # what OpenSSL has written and the socket has not accepted yet
        self._encrypted: bytes | memoryview = b""  # the data of the unsent records, to its end

    def do_handshake(self) -> None:
        """Do the handshake, or as much of it as possible without waiting.

        Raises:
            OSError: The handshake failed, or has to wait.
        """
        try:
            self._call(self.ssl_object.do_handshake)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            with contextlib.suppress(OSError):
                self._flush()  # the alert tells the peer the reason
            raise
        self.has_data = self._incoming.pending > 0
        self._flush()

    def recv(self, max_bytes: int) -> bytes:
        """Receive the data of all records that have arrived; ``b""`` is the end of the stream.

        Raises:
            OSError: The connection broke, or nothing has arrived.
        """
        if self._failure is not None:
            raise self._failure
        if not self.has_data:
            self._fill()
        try:
            received: bytes = self._read(max_bytes)
        except ssl.SSLWantReadError:
            received = self._call(partial(self._read, max_bytes))
        if self._incoming.pending and received:
            return self._receive_more(received, max_bytes)
        self._set_has_data(len(received), max_bytes)
        return received

    def _receive_more(self, first: bytes, max_bytes: int) -> bytes:
        """Return the data of a record together with that of the records that have arrived."""
        records, size = [first], len(first)
        try:
            while records[-1] and size < max_bytes:
                records.append(self._read(max_bytes - size))
                size += len(records[-1])
            self._set_has_data(len(records[-1]), len(records[-1]))
        except ssl.SSLWantReadError:
            self.has_data = self._outgoing.pending > 0
        except OSError as error:
            self._failure, self.has_data = error, True  # OpenSSL tells the reason only once
        return b"".join(records)

    def recv_into(self, buffer: memoryview) -> int:
        """Receive the data of one record into a buffer as `recv` does; return its size.

        Raises:
            OSError: The connection broke, or nothing has arrived.
        """
        if self._failure is not None:
            raise self._failure
        if not self.has_data:
            self._fill()
        size: int = self._call(partial(self._read, len(buffer), buffer))
        self._set_has_data(size, len(buffer))
        return size

    def _set_has_data(self, size: int, max_bytes: int) -> None:
        """Set `has_data` after a record, or a part of one, was read."""
        self.has_data = (
            self._incoming.pending > 0
            or self._outgoing.pending > 0  # the next call sends it
            or not size  # the end of the stream
            or (size == max_bytes and self.ssl_object.pending() > 0)
        )

    def send(self, data: bytes | memoryview) -> int:
        """Send data; return the number of bytes that were sent.

        If that is less than all, or if the socket accepts nothing, the next call must begin with
        the rest of the data, unless `abandon_send` is called. The last byte counts as sent when the
        socket has accepted all records. A call that raises an error has sent nothing.

        Raises:
            OSError: The connection broke, or the socket accepts nothing.
        """
        if not self._encrypted:
            if self._unsent:
                self._flush()
            try:
                size = self._write(data)
            except ssl.SSLWantReadError:
                size = self._call(partial(self._write, data))
            if size < len(data):
                data = memoryview(data)[:MAX_WRITE]
                while size < len(data):
                    size += self._write(data[size:])
            self._encrypted = data
            self._unsent = self._outgoing.read()
        sent = self._socket.send(self._unsent)
        size = len(self._encrypted)
        if sent == len(self._unsent):
            self._unsent = self._encrypted = b""
            return size
        size = min(sent, size - 1)
        self._unsent = self._unsent[sent:]
        self._encrypted = self._encrypted[size:]
        return size

    def abandon_send(self) -> None:
        """Let the next `send` begin with other data; records that are not complete stay first."""
        self._encrypted = b""

    def fileno(self) -> int:
        """Return the file descriptor of the socket; -1 if it is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket without a closing alert."""
        self.has_data = False
        self._failure = None
        self._socket.close()

    def _call(self, method: Callable[[], T]) -> T:
        """Call a method of OpenSSL, and exchange bytes with the peer until it succeeds.

        Raises:
            OSError: The connection broke, or has to wait.
        """
        while True:
            try:
                return method()
            except ssl.SSLWantReadError:
                self.has_data = False
                if not self._encrypted:  # whose sender goes on
                    self._flush()
                self._fill()

    def _fill(self) -> None:
        """Receive what has arrived, for OpenSSL."""
        try:
            received = self._socket.recv(MAX_READ)
        except NOT_YET:
            raise ssl.SSLWantReadError from None
        if received:
            self._incoming.write(received)
        else:
            self._incoming.write_eof()
        self.has_data = True

    def _flush(self) -> None:
        """Send everything that OpenSSL has written."""
        self._unsent += self._outgoing.read()
        if self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except NOT_YET:
                sent = 0
            self._unsent = self._unsent[sent:]
        if self._unsent:
            raise ssl.SSLWantWriteError
