"""The client's connection below HTTP: close, reset, truncate."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Connection"]

#: How often a reset checks whether the data before it has arrived, and seconds between two checks.
_FLUSH_CHECKS = 1000
_FLUSH_INTERVAL = 0.001
#: The socket option SO_LINGER with a time of zero: closing the socket resets the connection.
_LINGER = struct.pack("ii", 1, 0)


class Connection:
    """The connection of a client.

    Args:
        connections: The set of open connections, to which this one belongs while it is open.
    """

    def __init__(self, connections: set[Connection]) -> None:
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._closed = asyncio.Event()
        self._callbacks: list[Callable[[], object]] = []

    @property
    def is_closed(self) -> bool:
        """True if the client or the server has closed the connection."""
        return self._closed.is_set()

    @contextlib.contextmanager
    def on_disconnect(self, callback: Callable[[], object]) -> Generator[None]:
        """Call `callback` if the connection is closed during this block."""
        if self.is_closed:
            callback()
        self._callbacks.append(callback)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

    async def close(self, final_bytes: bytes = b"", *, reset: bool = False) -> None:
        """Send bytes without any framing, close the connection, and wait until it is closed.

        Args:
            final_bytes: The bytes to send.
            reset: Whether to reset the connection (RST) instead of closing it.
        """
        transport = self._transport
        if transport is None or self.is_closed:
            return
        if final_bytes:
            transport.write(final_bytes)
        if reset:
            # A reset discards data in transit, and no event reports that the data has arrived.
            for _ in range(_FLUSH_CHECKS):
                if self._closed.is_set() or not _unsent_bytes(transport):
                    break
                await asyncio.sleep(_FLUSH_INTERVAL)
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            transport.abort()
        else:
            transport.close()
        await self._closed.wait()

    def abort(self) -> None:
        """Close the connection immediately."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the client or the server has closed the connection."""
        await self._closed.wait()

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Handle the start of the connection."""
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self) -> None:
        """Handle the end of the connection."""
        self._connections.discard(self)
        self._closed.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def _unsent_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes have not arrived: in the buffers of this process and the kernel."""
    unsent = transport.get_write_buffer_size()
    try:
        # Not every system has these modules.
        import fcntl
        import termios

        queue = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (ImportError, OSError):  # not every system reports it
        return unsent
    return unsent + int.from_bytes(queue, sys.byteorder)
