"""The ``network_stream`` extension of httpx: the byte stream below a response."""

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
    """Information about a connection; after an upgrade, its bytes as well.

    It has the methods and errors of httpcore's ``AsyncNetworkStream``. A connection that was not
    upgraded belongs to HTTP: it can be neither read nor written through this object.

    Args:
        connection: The connection.
        is_upgraded: Whether the connection has switched to another protocol.
        received: The bytes of that protocol that arrived with the response.
    """

    def __init__(
        self, connection: HTTPConnection, *, is_upgraded: bool = False, received: bytes = b""
    ) -> None:
        self._connection = connection
        self._is_upgraded = is_upgraded
        self._received = received

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive at least one byte; ``b""`` is the end of the stream.

        Raises:
            httpcore.ReadError: The connection broke, or was not upgraded.
            httpcore.ReadTimeout: Nothing arrived in time.
        """
        if not self._is_upgraded:
            raise _httpcore_error("ReadError", "the connection was not upgraded")
        if self._received:
            received, self._received = self._received[:max_bytes], self._received[max_bytes:]
            return received
        try:
            with optional_timeout(timeout):
                return await self._connection.stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise _httpcore_error("ReadError", str(error.__cause__ or error)) from error
        raise _httpcore_error("ReadTimeout", f"no data was received for {timeout} s")

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes of a buffer.

        Raises:
            httpcore.WriteError: The connection broke, or was not upgraded.
            httpcore.WriteTimeout: The buffer was not sent in time.
        """
        if not self._is_upgraded:
            raise _httpcore_error("WriteError", "the connection was not upgraded")
        try:
            with optional_timeout(timeout):
                return await self._connection.stream.send(buffer)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise _httpcore_error("WriteError", str(error.__cause__ or error)) from error
        raise _httpcore_error("WriteTimeout", f"the buffer was not sent within {timeout} s")

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
        """Do a TLS handshake on an upgraded connection; the result replaces this stream.

        Raises:
            httpcore.ConnectError: The handshake failed, or the connection was not upgraded.
            httpcore.ConnectTimeout: The handshake took too long.
        """
        connection = self._connection
        if not self._is_upgraded or self._received:
            raise _httpcore_error(
                "ConnectError", "TLS cannot start while another protocol is in use"
            )
        try:
            with optional_timeout(timeout):
                name = server_hostname or connection.origin.host
                connection.stream = await connection.stream.start_tls(ssl_context, name)
                return NetworkStream(connection, is_upgraded=True)
        except OSError as error:
            raise _httpcore_error("ConnectError", str(error)) from error
        raise _httpcore_error(
            "ConnectTimeout", f"the TLS handshake did not finish within {timeout} s"
        )

    def get_extra_info(self, info: str) -> Any:
        """Return ``client_addr``, ``server_addr``, ``socket``, ``ssl_object`` or ``is_readable``.

        Other names, and information that is not known, give ``None``.
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
                return connection.stream.has_unread_data()
            case _:
                return None


def _httpcore_error(name: str, message: str) -> Exception:
    import httpcore  # loads slowly, and few programs need it

    error: Exception = getattr(httpcore, name)(message)
    return error
