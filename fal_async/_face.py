"""What the generated blocking classes have in common."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload

from fal_async._portal import Portal
from fal_async.errors import ClientClosedError

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Coroutine,
        Generator,
        Iterator,
        Mapping,
    )

__all__ = ["ClientFace", "Face", "SocketFace", "StreamFace"]

V = TypeVar("V")
MappingT = TypeVar("MappingT", bound="Mapping[str, Any]")
AsyncT = TypeVar("AsyncT")
ItemT = TypeVar("ItemT")
ItemT_co = TypeVar("ItemT_co", covariant=True)


class _AsyncClient(Protocol):
    def aclose(self) -> Awaitable[None]: ...

    def _closing_time(self) -> float: ...


class _AsyncSocket(Protocol[ItemT_co]):
    def __anext__(self) -> Coroutine[Any, Any, ItemT_co]: ...


class _AsyncStream(Protocol[ItemT_co]):
    def __aiter__(self) -> AsyncIterator[ItemT_co]: ...

    def __aenter__(self) -> Coroutine[Any, Any, object]: ...

    def aclose(self) -> Coroutine[Any, Any, None]: ...


ClientT = TypeVar("ClientT", bound=_AsyncClient)
SocketT = TypeVar("SocketT", bound=_AsyncSocket[Any])
StreamT = TypeVar("StreamT", bound=_AsyncStream[Any])


class Face(Generic[AsyncT]):
    """An async object, and the portal to the loop that it is used on."""

    def __init__(self, portal: Portal, its_async: AsyncT) -> None:
        self._portal = portal
        self._async = its_async

    @overload
    @staticmethod
    def _bare(value: Face[V]) -> V: ...

    @overload
    @staticmethod
    def _bare(value: MappingT) -> MappingT: ...

    @staticmethod
    def _bare(value: Any) -> Any:
        """The async object behind a face; other data as it is."""
        face: Any = value
        return face._async if isinstance(value, Face) else value  # noqa: SLF001 -- its other half

    def __repr__(self) -> str:
        return repr(self._async).replace(type(self._async).__name__, type(self).__name__, 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return bool(self._async == other._async)

    def __hash__(self) -> int:
        return hash(self._async)


class ClientFace(Face[ClientT]):
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
        return self._beside(copy(self._async))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return copy(self)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_shares_portal": False}
        del state["_portal"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _portal=Portal(state["_async"].aclose))

    def _beside(self, client: ClientT) -> Self:
        """Another client on the same loop, which does not end with it."""
        face = object.__new__(type(self))
        face.__dict__.update(self.__dict__, _async=client, _shares_portal=True)
        return face

    def _close(self) -> None:
        if not self._shares_portal:
            self._portal.close()


def _portal_of(client: _AsyncClient) -> Portal:
    patience = client._closing_time  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- its other half
    return Portal(client.aclose, patience)


class SocketFace(Face[SocketT], Generic[SocketT, ItemT]):
    """A connection, whose messages are received one by one, so that none is taken and lost."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        try:
            message: ItemT = self._portal.call(self._async.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None
        return message


class StreamFace(Face[StreamT], Generic[StreamT, ItemT]):
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
