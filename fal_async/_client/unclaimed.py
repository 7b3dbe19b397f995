"""Outcomes that have arrived when their caller is gone.

A thread that waits for a coroutine of another one can be interrupted in the very moment in which
the outcome comes. A method whose outcome must not be lost says here what becomes of it then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Disposal", "disposal_of", "unclaimed"]

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Disposal:
    """Disposes of outcomes that nobody receives.

    Attributes:
        dispose: Called with the object whose method it was, and the value.
        is_kept: Whether the object keeps it for the next call. If so, errors of the library are
            kept as well.
    """

    dispose: Callable[[Any, Any], Awaitable[None]]
    is_kept: bool


def unclaimed(
    dispose: Callable[[Any, Any], Awaitable[None]], *, is_kept: bool = False
) -> Callable[[F], F]:
    """Decorate a method with what becomes of an outcome that its caller cannot receive."""

    def decorate(method: F) -> F:
        vars(method)["unclaimed"] = Disposal(dispose, is_kept)
        return method

    return decorate


def disposal_of(function: Callable[..., object]) -> Disposal | None:
    """Return what `unclaimed` said about a method, or ``None``."""
    disposal: Disposal | None = getattr(function, "unclaimed", None)
    return disposal
