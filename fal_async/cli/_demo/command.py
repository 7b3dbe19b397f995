"""The command ``demo`` around the demo: what goes in, and where the picture comes out."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import anyio
from PIL import Image

from fal_async._net.files import write_file
from fal_async._protocol.endpoint import parse_endpoint
from fal_async.cli._calls import emit
from fal_async.cli._console import Display
from fal_async.cli._demo import steps
from fal_async.cli._demo.app import CANVAS
from fal_async.cli._demo.images import (
    FILTERS,
    InvalidImageError,
    can_be_saved_as,
    draw,
    is_stored_as,
    read_picture,
    stored_as,
)
from fal_async.cli._demo.presenter import StepPresenter
from fal_async.cli._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    #: Puts the files of a result into a folder; gives the result and the files.
    Demo = Callable[[Path, StepPresenter], Awaitable[tuple[object, list[Path]]]]

__all__ = ["run_demo"]

_DEFAULT_FILTER: Final = "dream"


def run_demo(
    *, prompt: str, image: Path | None, filter_name: str | None, out: Path, live: str | None
) -> None:
    """Check what was given, show the demo, and keep its picture."""
    tour = _tour(prompt, image, filter_name, live)
    screen = Display(sys.stdout)
    with _folder_beside(out) as folder:
        output, files = anyio.run(tour, Path(folder), StepPresenter(screen))
        picture = _first_picture(files)
        if picture is None:
            screen.line()
            screen.note("The output", "holds no picture; here it is:")
            emit(output)
            return
        _keep(picture, out)
    _show(out, screen)


def _tour(prompt: str, image: Path | None, filter_name: str | None, live: str | None) -> Demo:
    if image is not None:
        _check_image(image)
    if live is None:
        look = _checked_filter(_DEFAULT_FILTER if filter_name is None else filter_name)
        return partial(steps.demonstrate, image or draw(prompt, CANVAS), look)
    parse_endpoint(live)
    if filter_name is not None:
        raise UsageError("--filter is for the emulated platform, so it cannot go with --live")
    arguments: dict[str, Any] = {"prompt": prompt}
    if image is not None:
        arguments["image_url"] = image
    return partial(steps.demonstrate_live, live, arguments)


def _check_image(image: Path) -> None:
    try:
        read_picture(image.read_bytes())
    except OSError as error:
        raise UsageError(f"--image {image}: {error.strerror or error}") from error
    except InvalidImageError as error:
        raise UsageError(f"--image {image} is {error}") from error


def _checked_filter(name: str) -> str:
    if name not in FILTERS:
        raise UsageError(f"--filter {name}: there are {', '.join(FILTERS)}")
    return name


def _folder_beside(out: Path) -> TemporaryDirectory[str]:
    """A folder from which a picture can be moved to its place in one step."""
    parent = out.absolute().parent
    if not can_be_saved_as(out.suffix):
        raise UsageError(f"--out {out}: the name must end like a picture's, such as .png")
    if not parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {parent}")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder")
    try:
        return TemporaryDirectory(prefix=".fal_async_", dir=parent)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--out {out} cannot be written: {reason}") from error


def _first_picture(files: Sequence[Path]) -> Path | None:
    for file in files:
        try:
            read_picture(file.read_bytes())
        except InvalidImageError:
            continue
        return file
    return None


def _keep(picture: Path, out: Path) -> None:
    """Put a picture where it belongs: as it is, or in the format that the name stands for."""
    content = picture.read_bytes()
    if not is_stored_as(content, out.suffix):
        content = stored_as(read_picture(content), out.suffix)
    write_file(out, content)


def _show(out: Path, screen: Display) -> None:
    with Image.open(out) as picture:
        width, height = picture.size
        screen.picture(picture.convert("RGB"))
    screen.line()
    screen.note("Saved", f"{out.absolute()} ({width} x {height})")
    screen.note("The code", steps.__file__)
