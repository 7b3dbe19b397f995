"""Registry of the open WebSockets of a client, which are closed with it."""

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
    """Opens WebSockets until the client is closed, and then closes those of the running event loop.

    The owner of a WebSocket normally closes it. The registry closes those that are open when the
    client is closed.
    """

    def __init__(self) -> None:
        self._websockets: PerLoop[WeakSet[WebSocket]] = PerLoop(WeakSet, _close_without_loop)
        self._closed = False

    async def open(self, connect: Callable[[], Awaitable[WebSocket]]) -> WebSocket:
        """Call a function that opens a WebSocket, and register the result.

        Raises:
            ClientClosedError: The client was closed before the WebSocket was open.
        """
        self._check_open()
        websocket = await connect()
        try:
            self._check_open()
        except ClientClosedError:
            websocket.abort()
            raise
        self._websockets.get().add(websocket)
        return websocket

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed")

    async def aclose(self) -> None:
        """Close the WebSockets of the running event loop concurrently, with close frames."""
        self._closed = True
        websockets = self._websockets.pop()
        if websockets:
            async with anyio.create_task_group() as tasks:
                for websocket in list(websockets):
                    tasks.start_soon(websocket.close)


def _close_without_loop(websockets: WeakSet[WebSocket]) -> None:
    for websocket in list(websockets):
        websocket.close_without_loop()
