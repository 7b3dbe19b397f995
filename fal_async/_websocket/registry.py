"""The WebSockets of a client, which are closed with it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

import anyio

from fal_async._net.event_loops import PerLoop
from fal_async.errors import ClientClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async._websocket.connection import WebSocket

__all__ = ["WebSocketRegistry"]


class WebSocketRegistry:
    """Opens WebSockets as long as it is not closed, and then closes those of the running loop.

    Whoever opens one closes it, as a rule; this is for when the client is closed first.
    """

    def __init__(self) -> None:
        self._sockets: PerLoop[WeakSet[WebSocket]] = PerLoop(WeakSet, _discard)
        self._closed = False

    async def open(self, connect: Callable[[], Awaitable[WebSocket]]) -> WebSocket:
        """Open a socket by a function.

        Raises:
            ClientClosedError: The client was closed before the socket was open.
        """
        self._refuse_if_closed()
        socket = await connect()
        try:
            self._refuse_if_closed()
        except ClientClosedError:
            socket.drop()
            raise
        self._sockets.get().add(socket)
        return socket

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed")

    async def aclose(self) -> None:
        """Close the sockets of the running event loop in good order, all at once."""
        self._closed = True
        sockets = self._sockets.pop()
        if sockets:
            async with anyio.create_task_group() as tasks:
                for socket in list(sockets):
                    tasks.start_soon(socket.close)


def _discard(sockets: WeakSet[WebSocket]) -> None:
    for socket in list(sockets):
        socket.discard()
