"""`AsyncPages`: a listing of the platform API, whose items are fetched page by page."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from fal_async._core.annotations import set_module

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from fal_async._core.platform import Page
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._protocol.operation import Operation

__all__ = ["AsyncPages"]

ItemT = TypeVar("ItemT")

#: The number of ids that a listing remembers, to yield no item twice.
MAX_SEEN: Final = 1000


@set_module("fal_async")
class AsyncPages(Generic[ItemT]):
    """A listing, which fetches its pages while it is iterated over.

    Nothing is sent before the first item is needed. Each iteration begins at the first page. An
    item that moved to a later page meanwhile is yielded once.

    Example:
        >>> async def main() -> None:
        ...     async with fal_async.AsyncClient() as client:
        ...         async for model in client.models.list(endpoint_ids=["demo/echo"]):
        ...             print(model.endpoint_id)
        >>> anyio.run(main)
        demo/echo
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        listings: Sequence[Callable[[str | None], Operation[Page[ItemT]]]],
        *,
        cursor: str | None,
        identify: Callable[[ItemT], str],
    ) -> None:
        self._dispatcher = dispatcher
        self._listings = listings
        self._cursor = cursor
        self._identify = identify

    async def __aiter__(self) -> AsyncGenerator[ItemT, None]:
        """Yield the items of all pages."""
        seen: dict[str, None] = {}  # in order: the oldest ids are forgotten
        async with aclosing(self.pages()) as pages:
            async for page in pages:
                for item in page.items:
                    identity = self._identify(item)
                    if identity not in seen:
                        yield item
                        seen[identity] = None
                        if len(seen) > MAX_SEEN:
                            del seen[next(iter(seen))]

    async def pages(self) -> AsyncGenerator[Page[ItemT], None]:
        """Yield the pages as the platform delimits them.

        A page may be empty and have a cursor nevertheless.

        Raises:
            AuthenticationError: The key is invalid, or there is none where one is needed.
            RateLimitError: The platform asked to slow down, for longer than the client's retry
                policy allows.
        """
        for make_operation in self._listings:
            cursor = self._cursor
            while True:
                page = await self._dispatcher.execute(make_operation(cursor))
                yield page
                cursor = page.next_cursor
                if cursor is None:
                    break
