"""The server's side of a WebSocket, frame by frame, for scripts of a `RawServer`."""

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
    """Shakes hands, then reads and writes frames; answers nothing by itself."""

    def __init__(self, line: RawConnection, *, early: bytes = b"") -> None:
        self.line = line
        self.protocol = ServerProtocol(max_size=None)
        self.protocol.receive_data(line.until(b"\r\n\r\n"))
        (request,) = self.protocol.events_received()
        assert isinstance(request, Request)
        self.request = request
        self.protocol.send_response(self.protocol.accept(request))
        line.send(b"".join(self.protocol.data_to_send()) + early)
        self._frames: list[Frame] = []

    def read(self) -> Frame:
        """The client's next frame."""
        while not self._frames:
            if not self.line._buffer and not self.line._fill():
                raise ConnectionError("the client left without a frame")
            self.protocol.receive_data(self.line._take(len(self.line._buffer)))
            assert self.protocol.parser_exc is None, self.protocol.parser_exc
            self._frames += [
                each for each in self.protocol.events_received() if isinstance(each, Frame)
            ]
        return self._frames.pop(0)

    def expect(self, opcode: Opcode, data: bytes) -> None:
        frame = self.read()
        assert (frame.opcode, bytes(frame.data)) == (opcode, data)

    def close_code(self) -> int:
        """Read up to the client's close, and give its code."""
        while (frame := self.read()).opcode is not Opcode.CLOSE:
            pass
        return int.from_bytes(frame.data[:2], "big")

    def agree(self) -> int:
        """Read up to the client's close, and answer it."""
        code = self.close_code()
        self.line.send(close(code))
        return code


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


def text(message: str, *, fin: bool = True) -> bytes:
    return frame(Opcode.TEXT, message.encode(), fin=fin)


def binary(message: bytes, *, fin: bool = True) -> bytes:
    return frame(Opcode.BINARY, message, fin=fin)


def more(part: bytes, *, fin: bool = False) -> bytes:
    return frame(Opcode.CONT, part, fin=fin)


def close(code: int = 1000, reason: str = "") -> bytes:
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason.encode())


def speaking(script: Callable[[ScriptedWebSocket], None]) -> Callable[[RawConnection], None]:
    """A script of a peer that begins after the handshake."""
    return lambda line: script(ScriptedWebSocket(line))


@contextlib.contextmanager
def websockets_server(
    handler: Callable[[ServerConnection], None], **options: object
) -> Iterator[str]:
    """websockets' own server, in threads; gives its address."""
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
