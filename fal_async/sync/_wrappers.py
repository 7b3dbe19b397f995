"""Base classes of the generated wrappers."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload

from fal_async.errors import ClientClosedError
from fal_async.sync._portal import Portal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator, Iterator, Mapping

__all__ = ["SyncClientBase", "SyncConnectionBase", "SyncStreamBase", "SyncWrapper"]

V = TypeVar("V")
MappingT = TypeVar("MappingT", bound="Mapping[str, Any]")
AsyncT = TypeVar("AsyncT")
ItemT = TypeVar("ItemT")
ItemT_co = TypeVar("ItemT_co", covariant=True)
ClientT = TypeVar("ClientT", bound="_AsyncClient")
ConnectionT = TypeVar("ConnectionT", bound="_AsyncConnection[Any]")
StreamT = TypeVar("StreamT", bound="_AsyncStream[Any]")


class _AsyncClient(Protocol):
    def aclose(self) -> Awaitable[None]: ...

    def _closing_time(self) -> float: ...


class _AsyncConnection(Protocol[ItemT_co]):
    def __anext__(self) -> Coroutine[Any, Any, ItemT_co]: ...


class _AsyncStream(Protocol[ItemT_co]):
    def __aiter__(self) -> AsyncIterator[ItemT_co]: ...

    def __aenter__(self) -> Coroutine[Any, Any, object]: ...

    def aclose(self) -> Coroutine[Any, Any, None]: ...


class SyncWrapper(Generic[AsyncT]):
    """An async object with the portal to its event loop."""

    def __init__(self, portal: Portal, wrapped: AsyncT) -> None:
        self._portal = portal
        self._async = wrapped

    @overload
    @staticmethod
    def _unwrap(value: SyncWrapper[V]) -> V: ...

    @overload
    @staticmethod
    def _unwrap(value: MappingT) -> MappingT: ...

    @staticmethod
    def _unwrap(value: Any) -> Any:
        """Return the async object of a wrapper, and any other value unchanged."""
        wrapper: Any = value
        return wrapper._async if isinstance(value, SyncWrapper) else value

    def __repr__(self) -> str:
        return repr(self._async).replace(type(self._async).__name__, type(self).__name__, 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return bool(self._async == other._async)

    def __hash__(self) -> int:
        return hash(self._async)


class SyncClientBase(SyncWrapper[ClientT]):
    """A client with its own portal, which it closes with itself."""

    _shares_portal = False

    def __init__(self, client: ClientT) -> None:
        timeout = client._closing_time  # pyright: ignore[reportPrivateUsage] -- of its own package
        super().__init__(Portal(client.aclose, timeout), client)

    @classmethod
    def _from_base(cls, client: SyncClientBase[ClientT]) -> Self:
        """Return a client of this class with the portal and the async client of another one."""
        made = object.__new__(cls)
        made.__dict__.update(client.__dict__)
        return made

    def __repr__(self) -> str:
        if "_async" not in self.__dict__:
            return f"<{type(self).__name__} with invalid arguments>"
        return super().__repr__()

    @property
    def _client(self) -> Self:
        """The client itself: programs for the official client bind handles to this attribute."""
        return self

    def __copy__(self) -> Self:
        return self._sharing_portal(copy(self._async))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copy(self)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_shares_portal": False}
        del state["_portal"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _portal=Portal(state["_async"].aclose))

    def _sharing_portal(self, client: ClientT) -> Self:
        """Return another client on the same loop, which does not close the portal."""
        made = self._from_base(self)
        made.__dict__.update(_async=client, _shares_portal=True)
        return made

    def _close(self) -> None:
        if not self._shares_portal:
            self._portal.close()


class SyncConnectionBase(SyncWrapper[ConnectionT], Generic[ConnectionT, ItemT]):
    """A connection. It receives one message per call, so that an interrupt loses none."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        try:
            message: ItemT = self._portal.call(self._async.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
        return message


class SyncStreamBase(SyncWrapper[StreamT], Generic[StreamT, ItemT]):
    """A stream, read by one task of the loop a few items ahead."""

    _entered = False

    @cached_property
    def _items(self) -> Generator[ItemT, None, None]:
        return self._portal.iterate(self._async.__aiter__)

    def __enter__(self) -> Self:
        self._portal.call(self._async.__aenter__)
        self._entered = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[ItemT]:
        return self._items

    def __next__(self) -> ItemT:
        for item in self._items:  # an interrupt could come between `next` and the return
            return item
        raise StopIteration

    def close(self) -> None:
        """Close the stream. Closing it again does nothing."""
        self._items.close()
        if self._entered:
            with suppress(ClientClosedError):
                self._portal.call(self._async.aclose)
