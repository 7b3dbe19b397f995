"""A request on its way to the peer: whether it may be repeated, and whether it was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fal_async._http.extensions import Tracer

__all__ = ["Transmission"]


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
