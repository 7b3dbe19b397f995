"""Base classes of the generated wrappers."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload

from fal_async._files.file import File, FileBase
from fal_async.errors import ClientClosedError
from fal_async.sync._portal import Portal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator, Iterator, Mapping

    from pydantic import PrivateAttr

    from fal_async._dispatch.dispatcher import Dispatcher

__all__ = ["SyncClientBase", "SyncConnectionBase", "SyncFileBase", "SyncStreamBase", "SyncWrapper"]

V = TypeVar("V")
MappingT = TypeVar("MappingT", bound="Mapping[str, Any]")
AsyncT = TypeVar("AsyncT")
ItemT = TypeVar("ItemT")
ItemT_co = TypeVar("ItemT_co", covariant=True)
ClientT = TypeVar("ClientT", bound="_AsyncClient")
SocketT = TypeVar("SocketT", bound="_AsyncSocket[Any]")
StreamT = TypeVar("StreamT", bound="_AsyncStream[Any]")


class _AsyncClient(Protocol):
    def aclose(self) -> Awaitable[None]: ...

    def _closing_time(self) -> float: ...


class _AsyncSocket(Protocol[ItemT_co]):
    def __anext__(self) -> Coroutine[Any, Any, ItemT_co]: ...


class _AsyncStream(Protocol[ItemT_co]):
    def __aiter__(self) -> AsyncIterator[ItemT_co]: ...

    def __aenter__(self) -> Coroutine[Any, Any, object]: ...

    def aclose(self) -> Coroutine[Any, Any, None]: ...


class SyncWrapper(Generic[AsyncT]):
    """An async object, and the portal to the loop that it is used on."""

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
        """The async object behind a face; other data as it is."""
        face: Any = value
        return face._async if isinstance(value, SyncWrapper) else value

    def __repr__(self) -> str:
        return repr(self._async).replace(type(self._async).__name__, type(self).__name__, 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return bool(self._async == other._async)

    def __hash__(self) -> int:
        return hash(self._async)


class SyncClientBase(SyncWrapper[ClientT]):
    """A client with a portal of its own, which ends with it."""

    _shares_portal = False

    def __init__(self, client: ClientT) -> None:
        super().__init__(_portal_of(client), client)

    def __repr__(self) -> str:
        if "_async" not in self.__dict__:
            return f"<{type(self).__name__}, whose arguments were refused>"
        return super().__repr__()

    @property
    def _client(self) -> Self:
        """The client that handles are bound to, where programs for the official client find it."""
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
        """Another client on the same loop, which does not end with it."""
        face = object.__new__(type(self))
        face.__dict__.update(self.__dict__, _async=client, _shares_portal=True)
        return face

    def _close(self) -> None:
        if not self._shares_portal:
            self._portal.close()


def _portal_of(client: _AsyncClient) -> Portal:
    patience = client._closing_time  # pyright: ignore[reportPrivateUsage] -- its other half
    return Portal(client.aclose, patience)


class SyncConnectionBase(SyncWrapper[SocketT], Generic[SocketT, ItemT]):
    """A connection, whose messages are received one by one, so that none is taken and lost."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        try:
            message: ItemT = self._portal.call(self._async.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
        return message


class SyncStreamBase(SyncWrapper[StreamT], Generic[StreamT, ItemT]):
    """A stream, which one task of the loop reads, a few items ahead."""

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
        for item in self._items:  # unlike `next`, it leaves no moment for an interrupt
            return item
        raise StopIteration

    def close(self) -> None:
        """Close the connection. It can be called again."""
        self._items.close()
        if self._entered:
            with suppress(ClientClosedError):
                self._portal.call(self._async.aclose)


class SyncFileBase(FileBase):
    """A file whose calls go over the portal that its output came by."""

    __slots__ = ("_over",)

    if TYPE_CHECKING:
        _over: Portal | None = PrivateAttr()

    def _bind(self, dispatcher: Dispatcher) -> Self:
        """Use a client's dispatcher, on the loop of the call that is under way."""
        return super()._bind(dispatcher)._bind_portal(Portal.current())

    def _bind_portal(self, portal: Portal | None) -> Self:
        """Let it be fetched over a portal; ``None`` is that of the module-level functions."""
        self._over = portal
        return self

    @property
    def _portal(self) -> Portal:
        return getattr(self, "_over", None) or _default_portal()[0]

    @property
    def _async(self) -> File:
        file = File(url=self.url, content_type=self.content_type, file_name=self.file_name)
        return file._bind(getattr(self, "_dispatcher", None) or _default_portal()[1])


def _default_portal() -> tuple[Portal, Dispatcher]:
    """What the module-level functions use, for files on their own."""
    from fal_async import sync  # the layer above

    client: Any = sync._client()  # pyright: ignore[reportPrivateUsage] -- theirs
    return client._portal, client._async._dispatcher
