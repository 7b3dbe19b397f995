"""Statuses, progress and images for people."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.text import Text

from fal_async.cli._errors import sanitize_line
from fal_async.types import Completed, InProgress, Queued, Status, Unknown

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path
    from typing import TextIO

    from PIL.Image import Image
    from rich.console import RenderableType

__all__ = ["Display", "ProgressDisplay", "as_json", "describe"]

_ACCENT: Final = "bold magenta"
_MARGIN: Final = "   "
_FRAMES_PER_SECOND: Final = 12

#: The maximum number of jobs ahead in the queue that are shown as dots.
_MAX_DOTS: Final = 20

#: The maximum width of a single image, and of an image in a row, in cells.
_IMAGE_WIDTH: Final = 54
_THUMBNAIL_WIDTH: Final = 16
#: The maximum height of an image in cells. A cell shows two pixels, one above the other.
_IMAGE_HEIGHT: Final = 18
#: The gap between the images of a row in cells.
_GAP: Final = 2

_STATUS_NAMES: Final[Mapping[type[Status], str]] = {
    Queued: "IN_QUEUE",
    InProgress: "IN_PROGRESS",
    Completed: "COMPLETED",
}


def describe(status: Status) -> str:
    """Return a status in words."""
    match status:
        case Queued(position=None):
            return "in the queue"
        case Queued(position=0):
            return "next in the queue"
        case Queued(position=position):
            return f"in the queue, {position} {'job' if position == 1 else 'jobs'} ahead"
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


def as_json(status: Status) -> dict[str, Any]:
    """Return a status as the platform sends it, without the values that are ``None``."""
    if isinstance(status, Unknown):
        return status.raw
    values = asdict(status)
    if isinstance(status, Queued):
        values = {"queue_position": status.position}
    known = {name: value for name, value in values.items() if value is not None}
    return {"status": _STATUS_NAMES[type(status)], **known}


class Display:
    """Output for people.

    Args:
        file: The stream to write to. A terminal gets colours, images and a line that changes in
            place; any other stream gets plain lines.
    """

    def __init__(self, file: TextIO) -> None:
        self._console = Console(file=file, highlight=False, soft_wrap=True)
        self._section = 0

    def title(self, text: str, note: str) -> None:
        """Write the title of the program."""
        self._print((text, _ACCENT), (f"  {note}", "dim"))

    def section(self, text: str) -> None:
        """Begin a numbered section; the text before the first colon is its name."""
        self._section += 1
        name, colon, rest = text.partition(":")
        self.line()
        self._print((f"{self._section}  ", _ACCENT), (name, "bold"), colon + rest)

    def code(self, source: str) -> None:
        """Write Python code."""
        syntax = Syntax("", "python", theme="ansi_dark", background_color="default")
        for line in syntax.highlight(source).split("\n"):
            if line:
                self._console.print(Text.assemble(_MARGIN, line))

    def line(self, text: str = "") -> None:
        """Write a line."""
        self._print(text)

    def note(self, name: str, text: str) -> None:
        """Write a line that begins with a name."""
        self._print((name, "bold"), f"  {text}")

    def picture(self, image: Image) -> None:
        """Show an image at low resolution, on terminals with enough colours."""
        self._console.print(_render_images(self._console, [image], _IMAGE_WIDTH))

    @contextmanager
    def progress(self) -> Generator[ProgressDisplay]:
        """Show the progress of a job within the block, and its images at the end."""
        progress = ProgressDisplay(self._console)
        if self._console.is_interactive:
            with Live(
                console=self._console,
                get_renderable=progress.render,
                refresh_per_second=_FRAMES_PER_SECOND,
                transient=True,
            ):
                yield progress
        else:
            yield progress
        self._console.print(_render_images(self._console, progress.images, _THUMBNAIL_WIDTH))

    def _print(self, *parts: str | tuple[str, str]) -> None:
        self._console.print(Text.assemble(*parts))


class ProgressDisplay:
    """The progress of one job: lines that begin with the seconds since its start.

    Call it with a status to show the status; it can be used as `on_queue_update`.

    Attributes:
        images: The images received so far.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started_at = self._last_write = time.monotonic()
        self.images: list[Image] = []
        self._state = ""
        self._jobs_ahead: int | None = None
        self._spinner = Spinner("dots", style=_ACCENT)

    def __call__(self, status: Status) -> None:
        if not isinstance(status, Completed):
            self._update_state(status)
        if isinstance(status, InProgress | Completed):
            for line in status.logs:
                self.write(f"| {sanitize_line(line['message'])}", "dim")
        if isinstance(status, Completed):
            self._update_state(status)

    def write(self, text: str, style: str = "") -> None:
        """Write a line."""
        self._console.print(Text.assemble(_MARGIN, (self._elapsed, "cyan"), "  ", (text, style)))
        self._last_write = time.monotonic()

    def picture(self, name: str, content: bytes) -> None:
        """Show an image, its size and the time since the last line.

        Args:
            name: The name to show.
            content: The content of the image file.
        """
        from PIL import Image  # installed with the extra `demo`

        image = Image.open(BytesIO(content))
        self.images.append(image)
        delay = 1000 * (time.monotonic() - self._last_write)
        size = f"{image.width} x {image.height}, {_format_size(len(content))}"
        self.write(f"{name}: {size}, {delay:.0f} ms later")

    def files(self, paths: Sequence[Path]) -> None:
        """Show the names and the sizes of files."""
        for path in paths:
            self.write(f"{path.name}: {_format_size(path.stat().st_size)}")

    def render(self) -> RenderableType:
        """Return the part that changes in place: the state of the job and the images."""
        jobs = "" if self._jobs_ahead is None else "  " + "● " * min(self._jobs_ahead, _MAX_DOTS)
        self._spinner.update(
            text=Text.assemble((self._elapsed, "cyan"), f"  {self._state}", (jobs, _ACCENT))
        )
        images = _render_images(self._console, self.images, _THUMBNAIL_WIDTH)
        return Group(self._spinner, images)

    def _update_state(self, status: Status) -> None:
        if (state := describe(status)) == self._state:
            return
        self._state = state
        self._jobs_ahead = (status.position or 0) if isinstance(status, Queued) else None
        if self._jobs_ahead is None or not self._console.is_interactive:
            self.write(state)

    @property
    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._started_at:5.2f} s"


def _render_images(console: Console, images: Sequence[Image], max_width: int) -> RenderableType:
    """Return images in a row below an empty line; nothing where colours are missing."""
    has_colours = console.color_system in {"256", "truecolor"} and not console.no_color
    if not (images and has_colours and console.is_interactive):
        return Group()
    from PIL import Image  # both are installed with the extra `demo`
    from rich_pixels import Pixels

    room = (console.width - 2 * len(_MARGIN)) // len(images) - _GAP
    column = _GAP + max(1, min(max_width, room))
    row = Image.new("RGBA", (len(_MARGIN) + len(images) * column, 2 * _IMAGE_HEIGHT))
    right = bottom = 0
    for number, image in enumerate(images):
        scale = min((column - _GAP) / image.width, row.height / image.height)
        size = (max(1, round(image.width * scale)), 2 * max(1, round(image.height * scale / 2)))
        resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
        left = len(_MARGIN) + number * column
        row.paste(image.convert("RGB").resize(size, resample), (left, 0))
        right, bottom = left + size[0], max(bottom, size[1])
    return Group(Text(), Pixels.from_image(row.crop((0, 0, right, bottom))))


def _format_size(count: int) -> str:
    return f"{count / 1000:.1f} kB"
