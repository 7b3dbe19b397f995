"""What people see: lines, and on a terminal a live one below them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.color import Color
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

from fal_async.cli._problems import one_line
from fal_async.cli._words import describe
from fal_async.types import Completed, InProgress, Queued

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import TextIO

    from PIL.Image import Image
    from rich.console import RenderableType

    from fal_async.types import Status

__all__ = ["Screen", "Wait"]

_ACCENT: Final = "bold magenta"
_MARGIN: Final = "   "
_FRAMES_PER_SECOND: Final = 12
#: How many jobs of a queue are shown as dots.
_DOTS: Final = 20
#: Cells of a thumbnail; a cell is about twice as high as it is wide and shows two pixels.
_THUMBNAIL_WIDTH: Final = 54
_THUMBNAIL_HEIGHT: Final = 18


class Screen:
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

    def thumbnail(self, picture: Image) -> None:
        """Show a picture in rough, on a terminal that has the colours for it."""
        self.line()
        if self._console.is_interactive and self._console.color_system in {"256", "truecolor"}:
            for line in _half_blocks(picture):
                self._console.print(Text.assemble(_MARGIN, line))
            self.line()

    @contextmanager
    def wait(self) -> Generator[Wait]:
        """Show how a job comes along, in this block."""
        wait = Wait(self._console)
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

    def _print(self, *parts: str | tuple[str, str]) -> None:
        self._console.print(Text.assemble(*parts))


class Wait:
    """The lines about one job, each with the seconds since the wait began.

    Call it with a status to show it, as `on_queue_update` does.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._state = ""
        self._ahead: int | None = None
        self._spinner = Spinner("dots", style=_ACCENT)

    def __call__(self, status: Status) -> None:
        if not isinstance(status, Completed):
            self._enter(status)
        if isinstance(status, InProgress | Completed):
            for line in status.logs or ():
                self.say(f"| {one_line(line['message'])}", "dim")
        if isinstance(status, Completed):
            self._enter(status)

    def say(self, text: str, style: str = "") -> None:
        """Write a line."""
        self._console.print(Text.assemble(_MARGIN, (self._elapsed, "cyan"), "  ", (text, style)))

    def live(self) -> RenderableType:
        """The line that changes in place."""
        queue = "" if self._ahead is None else "  " + "● " * min(self._ahead, _DOTS)
        self._spinner.update(
            text=Text.assemble((self._elapsed, "cyan"), f"  {self._state}", (queue, _ACCENT))
        )
        return self._spinner

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


def _half_blocks(picture: Image) -> Iterator[Text]:
    small = picture.copy()
    small.thumbnail((_THUMBNAIL_WIDTH, 2 * _THUMBNAIL_HEIGHT))
    pixels = small.tobytes()
    rows = [
        pixels[start : start + 3 * small.width] for start in range(0, len(pixels), 3 * small.width)
    ]
    for upper, lower in zip(rows[::2], rows[1::2], strict=False):
        line = Text()
        for at in range(0, len(upper), 3):
            colours = Style(
                color=Color.from_rgb(*upper[at : at + 3]),
                bgcolor=Color.from_rgb(*lower[at : at + 3]),
            )
            line.append("▀", colours)
        yield line
