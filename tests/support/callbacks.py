"""What a callback was told, for tests to wait on; and what a program said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class CallbackRecorder(list[T], Generic[T]):
    """A list that is a callback, too."""

    def __init__(self) -> None:
        super().__init__()
        self._news: anyio.Event | None = None

    def __call__(self, item: T) -> None:
        self.append(item)
        if self._news is not None:
            self._news.set()

    async def until(self, holds: Callable[[CallbackRecorder[T]], bool]) -> None:
        """Wait until something is so of what was heard."""
        while not holds(self):
            self._news = anyio.Event()
            await self._news.wait()


def said(stderr: bytes) -> list[bytes]:
    """The lines of a program in development mode, without those on slow steps.

    How slow a step is depends on how busy the machine is.
    """
    return [line for line in stderr.splitlines() if not line.startswith(b"Executing ")]
