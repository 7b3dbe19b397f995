"""Apps with a socket and a protocol of their own."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, Self

from fal_async.emulator._runners.signatures import positional
from fal_async.emulator._server.websocket import DisconnectedError
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._server.websocket import WebSocket

__all__ = ["FunctionSocketRunner", "Socket", "SocketRunner"]


class SocketRunner(Protocol):
    """Stands behind an endpoint id, for those who come with a WebSocket."""

    #: What such a call is for.
    route: Route

    async def serve(self, job: Job, websocket: WebSocket) -> None:
        """Accept a WebSocket, or refuse it, and serve it to its end."""

    async def aclose(self) -> None:
        """Give back what it holds; may be called twice."""


class Socket:
    """The app's end of a WebSocket: text and bytes, both ways.

    ``async for`` gives the messages until the client has gone.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def recv(self) -> str | bytes:
        """Receive the next message.

        Raises:
            DisconnectedError: The client has gone, or the socket has been closed.
        """
        return await self._websocket.recv()

    async def send(self, message: str | bytes) -> None:
        """Send a message.

        Raises:
            DisconnectedError: The client has gone, or the socket has been closed.
        """
        await self._websocket.send(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket, and wait a moment until the client has done so, too.

        Args:
            code: What the client is told.
            reason: What else it is told, up to 123 bytes.
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
            raise InvalidRequestError("a socket is served by an async function, or by an ASGI app")
        self._function = function
        self._count = len(positional(function))

    async def serve(self, job: Job, websocket: WebSocket) -> None:
        """Accept, and have the function do the rest; a crash of it cuts the connection."""
        await websocket.accept()
        await self._function(*(Socket(websocket), job)[: self._count])
        await websocket.close()

    async def aclose(self) -> None:
        """A function holds nothing."""
