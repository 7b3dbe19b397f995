"""A connection for the length of a block."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fal_async._transport.background import background
from fal_async._transport.tasks import bounded_shield

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fal_async._transport.websocket import WebSocket

__all__ = ["attended"]


@asynccontextmanager
async def attended(websocket: WebSocket) -> AsyncGenerator[None]:
    """Attend to a connection during the block, and close it after the block."""
    async with background() as tasks:
        tasks.start_soon(websocket.attend)
        try:
            yield
        finally:
            with bounded_shield():
                await websocket.close()
