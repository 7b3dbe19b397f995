"""`progress`: bars for the calls that wait, and for the files that are sent or received."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from fal_async._core.annotations import make_resolvable, set_module
from fal_async._core.hooks import use
from fal_async._core.status import InProgress, Queued
from fal_async.hooks._events import (
    CallEnded,
    CallStarted,
    DownloadProgress,
    SlotAcquired,
    StatusChanged,
    StreamEventReceived,
    UploadProgress,
    WaitingForSlot,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.progress import Progress, TaskID

    from fal_async.hooks._events import Call, Event

__all__ = ["ProgressBars", "progress"]

#: The calls that get a bar of their own; files have bars in all calls.
_SHOWN: Final = frozenset({"run", "stream", "subscribe", "get", "iter_events"})


@set_module("fal_async.hooks")
class ProgressBars:
    """A hook that shows bars; made by `fal_async.progress`. ``with`` shows the calls of a block."""

    def __init__(self, console: Console | None) -> None:
        try:
            # Late, since it is a dependency of an extra.
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
        except ModuleNotFoundError as error:
            raise ImportError('progress requires rich: pip install "fal-async[cli]"') from error
        console = console or Console(stderr=True)
        self._is_visible = console.is_terminal or console.is_jupyter
        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[tuple[int, str], TaskID] = {}
        self._scopes: list[AbstractContextManager[None]] = []

    def __enter__(self) -> Self:
        scope = use(self)
        scope.__enter__()
        self._scopes.append(scope)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scopes.pop().__exit__(None, None, None)

    def __call__(self, event: Event) -> None:
        """Receive an event."""
        if not self._is_visible:
            return
        call = event.call
        if isinstance(event, UploadProgress):
            name = f"upload {event.name or event.file}"
            self._show_file(call, name, event.sent, event.size, complete=event.complete)
        elif isinstance(event, DownloadProgress):
            name = f"download {event.url.rpartition('/')[2]}"
            self._show_file(call, name, event.received, event.size, complete=event.complete)
        elif isinstance(event, CallEnded):
            for key in [key for key in self._tasks if key[0] == call.id]:
                self._remove(key)
        elif (state := _describe(event)) is not None:
            self._show(call, call.application, state)

    def _show(self, call: Call, name: str, state: str) -> None:
        task = self._tasks.get((call.id, name))
        if task is None:
            if not self._tasks:
                self._progress.start()
            task = self._progress.add_task(name, total=None, state="")
            self._tasks[call.id, name] = task
        self._progress.update(task, state=state)

    def _show_file(
        self, call: Call, name: str, done: int, size: int | None, *, complete: bool
    ) -> None:
        if complete:
            self._remove((call.id, name))
            return
        self._show(call, name, f"{done / 1e6:.1f} MB")
        self._progress.update(self._tasks[call.id, name], completed=done, total=size)

    def _remove(self, key: tuple[int, str]) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            self._progress.remove_task(task)
            if not self._tasks:
                self._progress.stop()


def _describe(event: Event) -> str | None:
    """Return the state of a call after an event; ``None`` if the event does not change it."""
    match event:
        case CallStarted() if event.call.name in _SHOWN:
            return "started"
        case WaitingForSlot(limit=limit):
            return f"waiting for {limit}"
        case SlotAcquired():
            return "started"
        case StatusChanged(status=Queued(position=position)):
            return f"in the queue, position {position}"
        case StatusChanged(status=InProgress()):
            return "running"
        case StreamEventReceived(count=count):
            return f"{count} events"
        case _:
            return None


def progress(*, console: Console | None = None) -> ProgressBars:
    """Make a hook that shows bars in a terminal or in a notebook, and nothing elsewhere.

    Calls show their place in the queue and whether they run; files show how much was sent or
    received. Use it as a hook of a client, or in a ``with`` statement for the calls of a block.

    Args:
        console: The console of rich; ``None`` writes to stderr.

    Raises:
        ImportError: rich is not installed.

    Example:
        >>> async def main() -> None:
        ...     with fal_async.progress():
        ...         result = await fal_async.subscribe("demo/echo", {"prompt": "a cat"})
        ...     print(result["prompt"])
        >>> anyio.run(main)
        a cat
    """
    return ProgressBars(console)


make_resolvable(ProgressBars)
