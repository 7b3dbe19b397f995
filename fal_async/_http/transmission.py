"""One attempt to send a request: its state, and the trace events of httpx."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["Step", "TraceFunction", "Tracer", "Transmission", "trace"]


@dataclass(slots=True)
class Transmission:
    """The state of one attempt to send a request.

    The caller creates it for the attempt and reads it afterwards.

    Attributes:
        repeatable: Whether the request may be sent again although it may have reached the peer. The
            caller decides this by the effect of the request; its method does not matter.
        sent: Whether any of the request may have reached the peer: a byte was written to the
            socket. It never becomes false again.
        waiting_for: The local limit that the request waits for; empty while it waits for none.
        may_upgrade: Whether the request asks the peer to switch to another protocol.
        tracer: Reports the steps of the attempt; ``None`` disables tracing.
    """

    repeatable: bool = False
    sent: bool = False
    waiting_for: str = ""
    may_upgrade: bool = False
    tracer: Tracer | None = None


#: Called with the name of an event and its details.
TraceFunction: TypeAlias = "Callable[[str, dict[str, Any]], Awaitable[None] | None]"


class Step:
    """A step in progress.

    Attributes:
        return_value: The result of the step; ``None`` until it is known.
    """

    def __init__(self) -> None:
        self.return_value: Any = None


class Tracer:
    """Reports the steps of one request: ``started``, then ``complete`` or ``failed``.

    Args:
        function: Called for each event.
        request: The request, as events show it.
    """

    def __init__(self, function: TraceFunction, request: object) -> None:
        self._function = function
        self._request = request

    @asynccontextmanager
    async def step(self, name: str, info: dict[str, Any] | None = None) -> AsyncGenerator[Step]:
        """Report a step.

        Args:
            name: The name, such as ``"http11.send_request_headers"``.
            info: The details of the ``started`` event; ``None`` for the request.
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
        """Report that a step has started."""
        await self._call(f"{name}.started", {"request": self._request} if info is None else info)

    async def complete(self, name: str, return_value: object = None) -> None:
        """Report that a step is complete."""
        await self._call(f"{name}.complete", {"return_value": return_value})

    async def fail(self, name: str, error: BaseException) -> None:
        """Report that a step has failed."""
        await self._call(f"{name}.failed", {"exception": error})

    async def _call(self, event: str, info: dict[str, Any]) -> None:
        outcome = self._function(event, info)
        if isawaitable(outcome):
            await outcome


def trace(
    tracer: Tracer | None, name: str, info: dict[str, Any] | None = None
) -> AbstractAsyncContextManager[Step]:
    """Report a step, or do nothing without a tracer."""
    return nullcontext(Step()) if tracer is None else tracer.step(name, info)
