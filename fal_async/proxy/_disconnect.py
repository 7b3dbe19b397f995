"""Disconnects of visitors: work for them is cancelled when they leave."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fal_async._net.tasks import open_task_group

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

__all__ = ["Disconnect", "cancel_on_disconnect", "watch_disconnect"]


@dataclass(slots=True)
class Disconnect:
    """The disconnect of a visitor.

    Attributes:
        is_over: Whether the visitor has disconnected.
    """

    is_over: bool = False


@asynccontextmanager
async def watch_disconnect(
    receive: Callable[[], Awaitable[Mapping[str, Any]]],
) -> AsyncGenerator[Disconnect, None]:
    """Cancel the block when the visitor disconnects, and continue after it.

    Args:
        receive: The ``receive`` of ASGI. Nothing else may call it within the block.
    """
    disconnect = Disconnect()
    async with open_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            disconnect.is_over = True
            group.cancel_scope.cancel()

        group.start_soon(watch)
        yield disconnect
        group.cancel_scope.cancel()


@asynccontextmanager
async def cancel_on_disconnect(
    receive: Callable[[], Awaitable[Mapping[str, Any]]],
) -> AsyncGenerator[None, None]:
    """Cancel the block when the visitor disconnects, and with it the jobs that it waits for.

    Frameworks do not cancel a handler whose visitor has left, so it would pay for a result that has
    no reader. Read the body of the request before: messages that arrive in the block are dropped.

    Args:
        receive: The ``receive`` of ASGI, such as ``request.receive`` of Starlette and FastAPI.

    Raises:
        HTTPException: The visitor has disconnected; Starlette's exception, with status 499.

    Example:
        >>> from starlette.requests import Request
        >>> from starlette.responses import JSONResponse
        >>> from fal_async.proxy import cancel_on_disconnect
        >>> async def draw(request: Request) -> JSONResponse:
        ...     arguments = await request.json()
        ...     async with cancel_on_disconnect(request.receive):
        ...         result = await fal_async.subscribe("fal-ai/flux/dev", arguments)
        ...     return JSONResponse(result)
    """
    async with watch_disconnect(receive) as disconnect:
        yield
    if disconnect.is_over:
        # Late: starlette is a dependency of the extra.
        from starlette.exceptions import HTTPException

        raise HTTPException(499, "the client has disconnected")
