"""`SyncPages`: a listing of the platform API for code that blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from fal_async._core.annotations import set_module
from fal_async._platform.pages import AsyncPages
from fal_async.sync._wrappers import SyncWrapper

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from fal_async._core.platform import Page

__all__ = ["SyncPages"]

ItemT = TypeVar("ItemT")


@set_module("fal_async.sync")
class SyncPages(SyncWrapper[AsyncPages[ItemT]], Generic[ItemT]):
    """A listing, which fetches its pages while it is iterated over; see `AsyncPages`.

    Example:
        >>> with fal_async.sync.SyncClient() as client:
        ...     for model in client.models.list(endpoint_ids=["demo/echo"]):
        ...         print(model.endpoint_id)
        demo/echo
    """

    def __iter__(self) -> Iterator[ItemT]:
        """Yield the items of all pages."""
        return self._portal.iterate(self._async.__aiter__)

    def pages(self) -> Generator[Page[ItemT], None, None]:
        """Yield the pages as the platform delimits them."""
        return self._portal.iterate(self._async.pages)
