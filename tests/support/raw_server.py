"""A scripted TCP server, which controls every byte that a client receives."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

#: Timeout of every operation of the server, in seconds.
PATIENCE = 10.0

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RawConnection:
    """The server's side of one connection.

    Attributes:
        number: The number of the connection, counted from one.
        requests: The requests that were read, as bytes.
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        self._socket = sock
        self.number = number
        self.requests: list[bytes] = []
        self._buffer = bytearray()

    def request(self) -> bytes:
        """Read a request and join its chunks; return b"" after the client has disconnected."""
        head = self.until(b"\r\n\r\n")
        if not head:
            return b""
        lowered = head.lower()
        body = b""
        if b"\r\ncontent-length: " in lowered:
            body = self.exactly(int(lowered.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0]))
        elif b"\r\ntransfer-encoding: chunked" in lowered:
            while size := self.until(b"\r\n"):
                chunk = self.exactly(int(size, 16) + 2)
                body += chunk[:-2]
                if chunk == b"\r\n":
                    break
        self.requests.append(head + body)
        return head + body

    def until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._fill():
                return b""
        return self._take(self._buffer.index(mark) + len(mark))

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._fill():
                raise ConnectionError("the client disconnected within a request")
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _fill(self) -> bool:
        received = self._socket.recv(65536)
        self._buffer += received
        return bool(received)

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self._socket.sendall(part)

    def respond(self, *parts: bytes) -> None:
        """Read a request, then send a response."""
        self.request()
        self.send(*parts)

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection, so that the client gets an error instead of EOF."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def stop_reading(self) -> None:
        """Stop reading, which ends scripts that wait for the client."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RD)

    def unwrap(self) -> None:
        """Send the closing alert of TLS."""
        assert isinstance(self._socket, ssl.SSLSocket)
        self._socket = self._socket.unwrap()

    def wait_closed(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while self._socket.recv(65536):
                pass


class RawServer:
    """A server on a free port of the loopback interface; each connection has a thread.

    Args:
        script: Handles one connection, which is closed when the script returns.
        tls: The server's TLS context; ``None`` for plain connections.
        receive_buffer: Size of the receive buffer in bytes; ``None`` for the default size.
    """

    def __init__(
        self,
        script: Callable[[RawConnection], None],
        *,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self._script = script
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[RawConnection] = []
        self._changed = threading.Condition()
        self._may_run = threading.Event()
        self._may_run.set()
        self._closed = 0
        self.errors: list[Exception] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.stop_reading()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a script of the server hangs"
        if error is None:
            assert not self.errors, self.errors

    def pause(self) -> None:
        """Hold the scripts of new connections until `resume` is called."""
        self._may_run.clear()

    def resume(self) -> None:
        """Run the scripts of new connections."""
        self._may_run.set()

    def wait_ended(self, count: int = 1) -> None:
        """Wait until the scripts of ``count`` connections have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._closed >= count, PATIENCE)

    def wait_idle(self) -> None:
        """Wait until the scripts of all connections have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._closed == len(self.connections), PATIENCE)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            connection = RawConnection(sock, len(self.connections) + 1)
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: RawConnection) -> None:
        try:
            assert self._may_run.wait(PATIENCE)
            if self._tls is not None:
                connection._socket = self._tls.wrap_socket(connection._socket, server_side=True)
            self._script(connection)
        except (ConnectionError, ssl.SSLError):
            pass  # the client may disconnect at any time
        except Exception as error:  # noqa: BLE001 -- reported when the server closes
            self.errors.append(error)
        finally:
            connection.close()
            with self._changed:
                self._closed += 1
                self._changed.notify_all()


def respond_with(*parts: bytes) -> Callable[[RawConnection], None]:
    """Return a script that sends the same bytes after every request."""

    def script(connection: RawConnection) -> None:
        while connection.request():
            connection.send(*parts)

    return script
