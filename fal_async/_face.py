"""What the generated blocking classes have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar, overload

from fal_async._portal import Portal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = ["ClientFace", "Face"]

V = TypeVar("V")
MappingT = TypeVar("MappingT", bound="Mapping[str, Any]")
AsyncT = TypeVar("AsyncT")


class _AsyncClient(Protocol):
    def aclose(self) -> Awaitable[None]: ...


ClientT = TypeVar("ClientT", bound=_AsyncClient)


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
        if not isinstance(value, Face):
            return value
        face: Face[Any] = value
        return face._async

    def __repr__(self) -> str:
        return type(self).__name__ + repr(self._async).removeprefix(type(self._async).__name__)

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
        super().__init__(Portal(client.aclose), client)

    def __reduce__(self) -> tuple[Callable[..., ClientFace[Any]], tuple[Any, ...]]:
        return self._with_portal, (self._async,)

    @classmethod
    def _with_portal(cls, client: ClientT, portal: Portal | None = None) -> Self:
        face = object.__new__(cls)
        ClientFace[ClientT].__init__(face, client)
        if portal is not None:
            face._portal, face._shares_portal = portal, True
        return face

    def _beside(self, client: ClientT) -> Self:
        """Another client on the same loop, which does not end with it."""
        return self._with_portal(client, self._portal)

    def _close(self) -> None:
        if not self._shares_portal:
            self._portal.close()
