"""`EventRecorder`: the events of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.hooks import Event

E = TypeVar("E", bound="Event")


class EventRecorder(list["Event"]):
    """A hook that records the events."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: anyio.Event | None = None

    def __call__(self, event: Event) -> None:
        self.append(event)
        if self._changed is not None:
            self._changed.set()

    @property
    def names(self) -> list[str]:
        """The classes of the events, in order."""
        return [type(event).__name__ for event in self]

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of a class."""
        return [event for event in self if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        """Return the only event of a class."""
        (event,) = self.of(kind)
        return event

    async def until(self, kind: type[Any], holds: Callable[[Any], bool] = bool) -> None:
        """Wait for an event of a class for which a condition holds."""
        while not any(holds(event) for event in self.of(kind)):
            self._changed = anyio.Event()
            await self._changed.wait()
