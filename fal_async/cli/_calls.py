"""The commands that are calls of the library: output as JSON on stdout, news on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import anyio

from fal_async import AsyncClient
from fal_async.cli._output import emit
from fal_async.cli._screen import Screen
from fal_async.cli._streams import check_stdout
from fal_async.cli._words import as_json
from fal_async.errors import InvalidReplyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["call", "cancel", "result", "run", "status", "submit", "subscribe"]


#: How deeply outputs may be nested: ten times as deeply as Python is used to.
_DEEPEST: Final = 10_000


def call(function: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Call one of the functions below; what cannot be understood of the output is written as it is.

    Raises:
        BadInputError: There is nowhere to write an output to.
    """
    check_stdout()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEPEST))
    try:
        anyio.run(function, *arguments)
    except InvalidReplyError as error:
        if error.body:
            emit(error.body)
        raise
    finally:
        sys.setrecursionlimit(limit)


async def run(endpoint: str, arguments: Mapping[str, Any], timeout: float | None) -> None:
    """Call an endpoint directly, and write its output."""
    async with AsyncClient() as client:
        emit(await client.run(endpoint, arguments, timeout=timeout))


async def subscribe(endpoint: str, arguments: Mapping[str, Any], timeout: float | None) -> None:
    """Put a job into the queue, tell how it comes along, and write its output."""
    async with AsyncClient() as client:
        with Screen(sys.stderr).wait() as wait:
            output = await client.subscribe(
                endpoint,
                arguments,
                with_logs=True,
                on_queue_update=wait,
                client_timeout=timeout,
            )
        emit(output)


async def submit(endpoint: str, arguments: Mapping[str, Any]) -> None:
    """Put a job into the queue, and write its handle."""
    async with AsyncClient() as client:
        handle = await client.submit(endpoint, arguments)
        emit(handle.to_dict())


async def status(endpoint: str, request_id: str) -> None:
    """Write how a job stands."""
    async with AsyncClient() as client:
        emit(as_json(await client.status(endpoint, request_id, with_logs=True)))


async def result(endpoint: str, request_id: str) -> None:
    """Wait for a job, and write its output."""
    async with AsyncClient() as client:
        emit(await client.result(endpoint, request_id))


async def cancel(endpoint: str, request_id: str) -> None:
    """Cancel a job, and write what the platform says to it."""
    async with AsyncClient() as client:
        emit({"status": await client.cancel(endpoint, request_id)})
