"""The ``network_stream`` extension that httpx documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute

from fal_async._net.tasks import optional_timeout

if TYPE_CHECKING:
    import ssl

    from fal_async._http.connection import HTTPConnection

__all__ = ["NetworkStream"]


class NetworkStream:
    """What is known of a connection; after an upgrade, its bytes as well.

    It has the methods of httpcore's ``AsyncNetworkStream``, and its errors. A connection that was
    not upgraded belongs to HTTP, and cannot be read or written by way of this.

    Args:
        connection: The connection.
        is_upgraded: Whether it speaks another protocol than HTTP now.
        received: What has arrived of that.
    """

    def __init__(self, connection: HTTPConnection, *, is_upgraded: bool, received: bytes) -> None:
        self._connection = connection
        self._is_upgraded = is_upgraded
        self._received = received

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive some bytes; none at the end of the stream.

        Raises:
            httpcore.ReadError: The connection broke, or was not upgraded.
            httpcore.ReadTimeout: Nothing came in time.
        """
        if not self._is_upgraded:
            raise _error("ReadError", "the connection was not upgraded")
        if self._received:
            received, self._received = self._received[:max_bytes], self._received[max_bytes:]
            return received
        try:
            with optional_timeout(timeout):
                return await self._connection.stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise _error("ReadError", str(error.__cause__ or error)) from error
        raise _error("ReadTimeout", f"nothing was received for {timeout} s")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send some bytes.

        Raises:
            httpcore.WriteError: The connection broke, or was not upgraded.
            httpcore.WriteTimeout: They could not be sent in time.
        """
        if not self._is_upgraded:
            raise _error("WriteError", "the connection was not upgraded")
        try:
            with optional_timeout(timeout):
                return await self._connection.stream.send(buffer)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise _error("WriteError", str(error.__cause__ or error)) from error
        raise _error("WriteTimeout", f"not everything could be sent within {timeout} s")

    async def aclose(self) -> None:
        """Close an upgraded connection."""
        if self._is_upgraded:
            self._connection.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> NetworkStream:
        """Make a TLS handshake on an upgraded connection; the result replaces this stream.

        Raises:
            httpcore.ConnectError: The handshake failed, or the connection was not upgraded.
            httpcore.ConnectTimeout: It took too long.
        """
        connection = self._connection
        if not self._is_upgraded or self._received:
            raise _error("ConnectError", "TLS cannot start in the midst of another protocol")
        try:
            with optional_timeout(timeout):
                name = server_hostname or connection.origin.host
                connection.stream = await connection.stream.start_tls(ssl_context, name)
                return NetworkStream(connection, is_upgraded=True, received=b"")
        except OSError as error:
            raise _error("ConnectError", str(error)) from error
        raise _error("ConnectTimeout", f"no TLS within {timeout} s")

    def get_extra_info(self, info: str) -> Any:
        """Look up a fact: ``client_addr``, ``server_addr``, ``socket``, ``ssl_object``.

        Also ``is_readable``; ``None`` for what is not known.
        """
        connection = self._connection
        match info:
            case "client_addr":
                return connection.client_addr
            case "server_addr":
                return connection.server_addr
            case "socket":
                return connection.stream.extra(SocketAttribute.raw_socket)  # noqa: S610 -- anyio's
            case "ssl_object":
                return connection.stream.ssl_object
            case "is_readable":
                return not connection.is_quiet()
            case _:
                return None


def _error(name: str, message: str) -> Exception:
    import httpcore  # takes long to load, and few need it

    error: Exception = getattr(httpcore, name)(message)
    return error
