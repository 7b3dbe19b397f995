"""Progress and statuses for people."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.text import Text

from fal_async.cli._errors import sanitize_line
from fal_async.types import Completed, InProgress, Queued, Status, Unknown

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import TextIO

    from PIL.Image import Image
    from rich.console import RenderableType

__all__ = ["Display", "ProgressDisplay", "as_json", "describe"]


_NAMES: Final[Mapping[type[Status], str]] = {
    Queued: "IN_QUEUE",
    InProgress: "IN_PROGRESS",
    Completed: "COMPLETED",
}


def describe(status: Status) -> str:
    """A status in words."""
    match status:
        case Queued(position=position):
            return _place(position)
        case InProgress():
            return "in progress"
        case Completed(error=str(error)):
            return f"completed with an error: {sanitize_line(error)}"
        case Completed(metrics={"inference_time": int() | float() as seconds}):
            return f"completed, after {seconds:.2f} s of work"
        case Completed():
            return "completed"
        case _:
            return "in a state that this version does not know"


def _place(position: int | None) -> str:
    match position:
        case None:
            return "in the queue"
        case 0:
            return "in the queue, next in line"
        case 1:
            return "in the queue, 1 job ahead"
        case _:
            return f"in the queue, {position} jobs ahead"


def as_json(status: Status) -> dict[str, Any]:
    """A status as the platform names it; what is ``None`` is left out."""
    if isinstance(status, Unknown):
        return status.raw
    facts = asdict(status)
    if isinstance(status, Queued):
        facts = {"queue_position": status.position}
    known = {name: value for name, value in facts.items() if value is not None}
    return {"status": _NAMES[type(status)], **known}


_ACCENT: Final = "bold magenta"


_MARGIN: Final = "   "


_FRAMES_PER_SECOND: Final = 12


#: How many jobs of a queue are shown as dots.
_DOTS: Final = 20


#: How wide a picture is shown, and how wide one of a row, in cells.
_WIDE: Final = 54


_NARROW: Final = 16


class Display:
    """Writes for people.

    Args:
        file: Where to. A terminal gets colours and a live line; anything else gets plain lines.
    """

    def __init__(self, file: TextIO) -> None:
        self._console = Console(file=file, highlight=False, soft_wrap=True)
        self._sections = 0

    def title(self, text: str, remark: str) -> None:
        """Say what this is all about."""
        self._print((text, _ACCENT), (f"  {remark}", "dim"))

    def heading(self, text: str) -> None:
        """Begin a section; what stands before the first colon is its name."""
        self._sections += 1
        name, colon, rest = text.partition(":")
        self.line()
        self._print((f"{self._sections}  ", _ACCENT), (name, "bold"), colon + rest)

    def code(self, source: str) -> None:
        """Show a piece of Python."""
        syntax = Syntax("", "python", theme="ansi_dark", background_color="default")
        for line in syntax.highlight(source).split("\n"):
            if line:
                self._console.print(Text.assemble(_MARGIN, line))

    def line(self, text: str = "") -> None:
        """Write a line."""
        self._print(text)

    def note(self, name: str, text: str) -> None:
        """Write a closing remark."""
        self._print((name, "bold"), f"  {text}")

    def picture(self, picture: Image) -> None:
        """Show a picture in rough, on a terminal that has the colours for it."""
        _show(self._console, _thumbnail_lines(self._console, [picture], _WIDE))

    @contextmanager
    def wait(self) -> Generator[ProgressDisplay]:
        """Show how a job comes along, in this block, and then the pictures that came."""
        wait = ProgressDisplay(self._console)
        if self._console.is_interactive:
            with Live(
                console=self._console,
                get_renderable=wait.live,
                refresh_per_second=_FRAMES_PER_SECOND,
                transient=True,
            ):
                yield wait
        else:
            yield wait
        _show(self._console, _thumbnail_lines(self._console, wait.arrived, _NARROW))

    def _print(self, *parts: str | tuple[str, str]) -> None:
        self._console.print(Text.assemble(*parts))


class ProgressDisplay:
    """The lines about one job, each with the seconds since the wait began.

    Call it with a status to show it, as `on_queue_update` does.

    Attributes:
        arrived: The pictures that came.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = self._latest = time.monotonic()
        self.arrived: list[Image] = []
        self._state = ""
        self._ahead: int | None = None
        self._spinner = Spinner("dots", style=_ACCENT)

    def __call__(self, status: Status) -> None:
        if not isinstance(status, Completed):
            self._enter(status)
        if isinstance(status, InProgress | Completed):
            for line in status.logs:
                self.say(f"| {sanitize_line(line['message'])}", "dim")
        if isinstance(status, Completed):
            self._enter(status)

    def say(self, text: str, style: str = "") -> None:
        """Write a line."""
        self._console.print(Text.assemble(_MARGIN, (self._elapsed, "cyan"), "  ", (text, style)))
        self._latest = time.monotonic()

    def picture(self, name: str, content: bytes) -> None:
        """Tell of a picture that came, and how long after the latest line, and show it."""
        from fal_async.cli._demo.images import (
            read_picture,  # with Pillow, for those who want pictures
        )

        picture = read_picture(content)
        self.arrived.append(picture)
        later = 1000 * (time.monotonic() - self._latest)
        size = f"{picture.width} x {picture.height}, {_size(len(content))}"
        self.say(f"{name}: {size}, {later:.0f} ms later")

    def files(self, paths: Sequence[Path]) -> None:
        """Tell of files that were written."""
        for path in paths:
            self.say(f"{path.name}: {_size(path.stat().st_size)}")

    def live(self) -> RenderableType:
        """What changes in place: where the job stands, and the picture that came last."""
        queue = "" if self._ahead is None else "  " + "● " * min(self._ahead, _DOTS)
        self._spinner.update(
            text=Text.assemble((self._elapsed, "cyan"), f"  {self._state}", (queue, _ACCENT))
        )
        return Group(self._spinner, *_thumbnail_lines(self._console, self.arrived, _NARROW))

    def _enter(self, status: Status) -> None:
        if (state := describe(status)) == self._state:
            return
        self._state = state
        self._ahead = (status.position or 0) if isinstance(status, Queued) else None
        if self._ahead is None or not self._console.is_interactive:
            self.say(state)

    @property
    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:5.2f} s"


def _thumbnail_lines(console: Console, pictures: Sequence[Image], width: int) -> list[Text]:
    """Lines that show pictures in a row, below an empty one; none where there are no colours."""
    has_colours = console.color_system in {"256", "truecolor"} and not console.no_color
    if not (pictures and has_colours and console.is_interactive):
        return []
    from fal_async.cli._demo.images import GAP, side_by_side

    room = (console.width - 2 * len(_MARGIN)) // len(pictures) - len(GAP)
    lines = side_by_side(pictures, max(1, min(width, room)))
    return [Text(), *(Text.assemble(_MARGIN, line) for line in lines)]


def _show(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        console.print(line)


def _size(count: int) -> str:
    return f"{count / 1000:.1f} kB"
