"""Connections for the length of a block, whichever tasks enter and leave it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

from fal_async._net.tasks import shielded_cleanup
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Opening"]


class Closable(Protocol):
    """What is closed at the end of a block."""

    async def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


class Opening(AbstractAsyncContextManager[T]):
    """Opens a connection at the beginning of a block, and closes it at the end.

    Between the two no task, cancel scope or generator is held. So fixtures, exit stacks and pairs
    of functions may enter it in one task and leave it in another, or never.

    Args:
        connect: Opens the connection.
    """

    def __init__(self, connect: Callable[[], Awaitable[T]]) -> None:
        self._connect: Callable[[], Awaitable[T]] | None = connect
        self._connection: T | None = None

    async def __aenter__(self) -> T:
        connect, self._connect = self._connect, None
        if connect is None:
            raise InvalidRequestError("a block can be entered once; open another one")
        self._connection = connection = await connect()
        return connection

    async def __aexit__(self, *exc_info: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with shielded_cleanup():
                await connection.close()
