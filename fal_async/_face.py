"""What the generated blocking classes have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload

from fal_async._portal import Portal

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["ClientFace", "Face", "bare"]

V = TypeVar("V")
AsyncT = TypeVar("AsyncT")


class _AsyncClient(Protocol):
    def aclose(self) -> Awaitable[None]: ...


ClientT = TypeVar("ClientT", bound=_AsyncClient)


class Face(Generic[AsyncT]):
    """An async object, and the portal to the loop that it is used on."""

    _async: AsyncT
    _portal: Portal

    @classmethod
    def over(cls, portal: Portal, its_async: AsyncT) -> Self:
        """The face of an async object."""
        face = object.__new__(cls)
        face._portal = portal
        face._async = its_async
        return face

    def __repr__(self) -> str:
        return type(self).__name__ + repr(self._async).removeprefix(type(self._async).__name__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Face) or type(self) is not type(other):
            return NotImplemented
        return bool(self._async == other._async)

    def __hash__(self) -> int:
        return hash(self._async)


class ClientFace(Face[ClientT]):
    """A client with a portal of its own; one that is made by `over` shares another's."""

    _owns_portal = False

    def __init__(self, client: ClientT) -> None:
        self._async = client
        self._portal = Portal(client.aclose)
        self._owns_portal = True

    def _close(self) -> None:
        if self._owns_portal:
            self._portal.close()


@overload
def bare(value: Face[AsyncT]) -> AsyncT: ...


@overload
def bare(value: V) -> V: ...


def bare(value: Any) -> Any:
    """The async object behind a face; anything else as it is."""
    return value._async if isinstance(value, Face) else value
