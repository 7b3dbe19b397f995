"""Functions of a raw WebSocket."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, Self

from fal_async.emulator._runners.base import count_arguments
from fal_async.emulator._server.websocket import DisconnectedError
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._server.websocket import WebSocket

__all__ = ["FunctionSocketRunner", "Socket", "SocketRunner"]


class SocketRunner(Protocol):
    """Serves the WebSockets of an endpoint."""

    #: The route of the requests that it serves.
    route: Route

    async def serve(self, job: Job, websocket: WebSocket) -> None:
        """Accept or reject a WebSocket, and serve it until it is closed."""

    async def aclose(self) -> None:
        """Release all resources. A second call does nothing."""


class Socket:
    """The app's side of a WebSocket: it sends and receives text and binary messages.

    Functions that are registered with `Emulator.websocket` receive it. ``async for`` iterates over
    the received messages until the socket is closed.

    Example:
        >>> from fal_async.emulator import Emulator
        >>> with Emulator() as fal:
        ...     @fal.websocket("acme/echo")
        ...     async def echo(socket: Socket) -> None:
        ...         async for message in socket:
        ...             await socket.send(message)
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def recv(self) -> str | bytes:
        """Receive the next message.

        Returns:
            A `str` for a text message, `bytes` for a binary message.

        Raises:
            DisconnectedError: The socket is closed, by the client or by the app.
        """
        return await self._websocket.recv()

    async def send(self, message: str | bytes) -> None:
        """Send a message.

        Args:
            message: A `str` is sent as a text message, `bytes` as a binary message.

        Raises:
            DisconnectedError: The socket is closed, by the client or by the app.
        """
        await self._websocket.send(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket, and wait up to one second until the client has closed it, too.

        Args:
            code: The close code.
            reason: The close reason, up to 123 bytes in UTF-8.
        """
        await self._websocket.close(code, reason)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.recv()
        except DisconnectedError:
            raise StopAsyncIteration from None


class FunctionSocketRunner:
    """An async function of a `Socket`, or of a `Socket` and the `Job`."""

    route: Route = "socket"

    def __init__(self, function: Callable[..., Any]) -> None:
        if not inspect.iscoroutinefunction(function):
            raise InvalidRequestError(
                f"a WebSocket app must be an async function or an ASGI app, got {function!r}"
            )
        self._function = function
        self._count = count_arguments(function, "a Socket, or of a Socket and the Job")

    async def serve(self, job: Job, websocket: WebSocket) -> None:
        """Accept the WebSocket, call the function, and close the WebSocket."""
        await websocket.accept()
        await self._function(*(Socket(websocket), job)[: self._count])
        await websocket.close()

    async def aclose(self) -> None:
        """Do nothing: a function has no resources."""
