"""`CallbackRecorder`; the messages of programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class CallbackRecorder(list[T], Generic[T]):
    """A callback that records its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: anyio.Event | None = None

    def __call__(self, item: T) -> None:
        self.append(item)
        if self._changed is not None:
            self._changed.set()

    async def until(self, holds: Callable[[CallbackRecorder[T]], bool]) -> None:
        """Wait until a condition holds for the recorded arguments."""
        while not holds(self):
            self._changed = anyio.Event()
            await self._changed.wait()


def stderr_lines(stderr: bytes) -> list[bytes]:
    """Return the lines of a program in development mode, without those about slow steps.

    The duration of a step depends on the load of the machine.
    """
    return [line for line in stderr.splitlines() if not line.startswith(b"Executing ")]
