"""The steps of an exchange, told to a function as httpx's ``trace`` extension has it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["Step", "TraceFunction", "Tracer"]

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
