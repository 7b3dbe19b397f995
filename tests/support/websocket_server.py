"""WebSocket servers: one that a script controls frame by frame, and the one of websockets."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Protocol

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection, serve

from fal_async._net.tasks import shielded_cleanup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from tests.support.raw_server import RawConnection


class Closable(Protocol):
    async def close(self) -> None: ...


class ScriptedWebSocket:
    """The server's side of a WebSocket: accepts the handshake, and sends nothing by itself.

    Attributes:
        connection: The connection below the WebSocket.
        request: The request of the handshake.
    """

    def __init__(self, connection: RawConnection, *, early: bytes = b"") -> None:
        self.connection = connection
        self._protocol = ServerProtocol(max_size=None)
        self._protocol.receive_data(connection.until(b"\r\n\r\n"))
        (request,) = self._protocol.events_received()
        assert isinstance(request, Request)
        self.request = request
        self._protocol.send_response(self._protocol.accept(request))
        self.send(b"".join(self._protocol.data_to_send()) + early)
        self._frames: list[Frame] = []

    def send(self, *parts: bytes) -> None:
        """Send bytes, such as those of `text` and `close`."""
        self.connection.send(*parts)

    def read(self) -> Frame:
        """Return the client's next frame."""
        while not self._frames:
            if not self.connection._buffer and not self.connection._fill():
                raise ConnectionError("the client closed the connection before the next frame")
            self._protocol.receive_data(self.connection._take(len(self.connection._buffer)))
            assert self._protocol.parser_exc is None, self._protocol.parser_exc
            self._frames += [
                event for event in self._protocol.events_received() if isinstance(event, Frame)
            ]
        return self._frames.pop(0)

    def expect(self, opcode: Opcode, data: bytes) -> None:
        frame = self.read()
        assert (frame.opcode, bytes(frame.data)) == (opcode, data)

    def close_code(self) -> int:
        """Read up to the client's close frame, and return its code."""
        while (frame := self.read()).opcode is not Opcode.CLOSE:
            pass
        return int.from_bytes(frame.data[:2], "big")

    def confirm_close(self) -> int:
        """Read up to the client's close frame, send one with the same code, and return the code."""
        code = self.close_code()
        self.send(close(code))
        return code


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


def text(message: str, *, fin: bool = True) -> bytes:
    return frame(Opcode.TEXT, message.encode(), fin=fin)


def binary(message: bytes, *, fin: bool = True) -> bytes:
    return frame(Opcode.BINARY, message, fin=fin)


def continuation(part: bytes, *, fin: bool = False) -> bytes:
    return frame(Opcode.CONT, part, fin=fin)


def close(code: int = 1000, reason: str = "") -> bytes:
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode())


def websocket_script(
    script: Callable[[ScriptedWebSocket], None],
) -> Callable[[RawConnection], None]:
    """Make a script of a `RawServer` from one that starts after the handshake."""
    return lambda connection: script(ScriptedWebSocket(connection))


@contextlib.contextmanager
def websockets_server(
    handler: Callable[[ServerConnection], None], **options: object
) -> Iterator[str]:
    """Run the server of websockets in threads; yield its URL."""
    with serve(handler, "127.0.0.1", 0, max_size=None, **options) as server:  # type: ignore[arg-type]  # passed on
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/echo"
        server.shutdown()
        thread.join()


def echo(connection: ServerConnection) -> None:
    """Send every message back."""
    for message in connection:
        connection.send(message)


@contextlib.asynccontextmanager
async def closing(connection: Closable) -> AsyncGenerator[None]:
    """Close a connection on exit, even if the block is cancelled."""
    try:
        yield
    finally:
        with shielded_cleanup():
            await connection.close()
