"""A request on its way to the peer: whether it may be repeated or was sent, and who traces it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["Step", "TraceFunction", "Tracer", "Transmission"]


@dataclass(slots=True)
class Transmission:
    """One attempt to send a request. Whoever starts the attempt makes it and reads it afterwards.

    Attributes:
        repeatable: Whether the request may be sent again although it may have reached the peer. The
            caller decides that by what the request does; its method says nothing about it.
        sent: Whether any of the request may have reached the peer: a byte was written to the
            socket. It never becomes false again.
        waiting_for: The local limit that the request waits for; empty when it waits for none.
        may_upgrade: Whether the peer may switch to another protocol, which the request asks for.
        tracer: Told of the steps; ``None`` for nobody.
    """

    repeatable: bool = False
    sent: bool = False
    waiting_for: str = ""
    may_upgrade: bool = False
    tracer: Tracer | None = None


#: Called with the name of an event and what is known of it.
TraceFunction: TypeAlias = "Callable[[str, dict[str, Any]], Awaitable[None] | None]"


class Step:
    """A step under way.

    Attributes:
        return_value: What it came to; ``None`` until it is known.
    """

    def __init__(self) -> None:
        self.return_value: Any = None


class Tracer:
    """Tells of the steps of one exchange: ``started``, then ``complete`` or ``failed``.

    Args:
        function: The function.
        request: What events about the request show as such.
    """

    def __init__(self, function: TraceFunction, request: object) -> None:
        self._function = function
        self._request = request

    @asynccontextmanager
    async def step(self, name: str, info: dict[str, Any] | None = None) -> AsyncGenerator[Step]:
        """Tell of a step.

        Args:
            name: The name, such as ``"http11.send_request_headers"``.
            info: What is known when it starts; ``None`` for the request.
        """
        step = Step()
        await self.start(name, info)
        try:
            yield step
        except BaseException as error:
            await self.fail(name, error)
            raise
        await self.complete(name, step.return_value)

    async def start(self, name: str, info: dict[str, Any] | None = None) -> None:
        """Tell that a step begins."""
        await self._tell(f"{name}.started", {"request": self._request} if info is None else info)

    async def complete(self, name: str, return_value: object = None) -> None:
        """Tell that a step is done."""
        await self._tell(f"{name}.complete", {"return_value": return_value})

    async def fail(self, name: str, error: BaseException) -> None:
        """Tell that a step failed."""
        await self._tell(f"{name}.failed", {"exception": error})

    async def _tell(self, event: str, info: dict[str, Any]) -> None:
        outcome = self._function(event, info)
        if isawaitable(outcome):
            await outcome
