"""One connection of a client: parses requests, and sends the responses of the routes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

import httptools

from benchmarks.stub.echo import Echo, accept
from benchmarks.stub.routes import respond

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.stub.platform import Platform

__all__ = ["Connection"]

_HEADERS: Final = (
    b"content-type: application/json\r\nx-fal-request-id: 764cabcf-b745-4b3e-ae38-1200304cf45b\r\n"
)
_WRITE_BUFFER: Final = 1024 * 1024


class Connection(asyncio.Protocol):
    """One connection of a client.

    Attributes:
        platform: What all connections share.
        method: The method of the request that is being handled.
        path: Its path, without the query.
    """

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        platform.connections += 1
        self.method = self.path = ""
        self._parser = httptools.HttpRequestParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._echo: Echo | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._blocks: Iterator[bytes] = iter(())
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._blocks = iter(())
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._write_blocks()

    def data_received(self, data: bytes) -> None:
        if self._echo is not None:
            self._transport.write(self._echo.receive(data))
            if self._echo.closed:
                self._transport.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._become_socket(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._headers.clear()

    def on_url(self, url: bytes) -> None:
        self.path = url.partition(b"?")[0].decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_message_complete(self) -> None:
        if not self._parser.should_upgrade():
            self.method = self._parser.get_method().decode()
            respond(self)

    def response(self, status: int, body: bytes, headers: bytes = _HEADERS) -> None:
        """Send a complete response."""
        head = b"HTTP/1.1 %d OK\r\n%scontent-length: %d\r\n\r\n" % (status, headers, len(body))
        self._transport.write(head + body)

    def write(self, data: bytes) -> None:
        """Write a chunk of a response."""
        self._transport.write(data)

    def write_all(self, blocks: Iterator[bytes]) -> None:
        """Write many chunks of a response, no faster than the client reads."""
        self._blocks = blocks
        self._write_blocks()

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call a function after a delay, unless the client has disconnected."""
        self._timer = asyncio.get_running_loop().call_later(seconds, callback)

    def _write_blocks(self) -> None:
        while not self._paused and (block := next(self._blocks, None)) is not None:
            self._transport.write(block)

    def _become_socket(self, rest: bytes) -> None:
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in self._headers}
        head, self._echo = accept(headers, deflate=self.platform.deflates)
        self._transport.write(head + self._echo.receive(rest))
