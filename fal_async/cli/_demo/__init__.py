"""The command ``demo``: options in, an image file out."""

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
from fal_async.cli._console import Display
from fal_async.cli._demo import steps
from fal_async.cli._demo.app import IMAGE_SIZE
from fal_async.cli._demo.images import (
    FILTERS,
    InvalidImageError,
    detect_format,
    encode_image,
    format_from_suffix,
    make_gradient,
    read_image,
)
from fal_async.cli._demo.presenter import StepPresenter
from fal_async.cli._errors import UsageError
from fal_async.cli._output import emit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    #: Writes the files of an output into a directory; returns the output and the paths.
    Demo = Callable[[Path, StepPresenter], Awaitable[tuple[object, list[Path]]]]

__all__ = ["run_demo"]

_DEFAULT_FILTER: Final = "duotone"


def run_demo(
    *, prompt: str, image: Path | None, filter_name: str | None, out: Path, live: str | None
) -> None:
    """Check the options, run the demo, and save the first image of its output.

    Args:
        prompt: The prompt of the image.
        image: The path of an image to upload; ``None`` uses a generated image.
        filter_name: The filter of the emulated endpoint; ``None`` selects the default one.
        out: The path of the image file to write.
        live: The endpoint to call on the real platform; ``None`` runs an emulated one.

    Raises:
        UsageError: An option is invalid.
    """
    demo = _make_demo(prompt, image, filter_name, live)
    file_format = format_from_suffix(out.suffix)
    if file_format is None:
        raise UsageError(f"--out {out}: the name must have the suffix of an image, such as .png")
    parent = out.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"--out {out}: no such directory: {parent}")
    if out.is_dir():
        raise UsageError(f"--out {out} is a directory")
    try:
        # Beside the output, so that a failure to write there is found before the calls.
        temporary = TemporaryDirectory(prefix=".fal_async_", dir=parent)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"--out {out} cannot be written: {reason}") from error
    display = Display(sys.stdout)
    with temporary as directory:
        output, paths = anyio.run(demo, Path(directory), StepPresenter(display))
        for path in paths:
            content = path.read_bytes()
            try:
                decoded = read_image(content)
            except InvalidImageError:
                continue
            if detect_format(content) != file_format:
                content = encode_image(decoded, file_format)
            write_file(out, content)
            break
        else:
            display.line()
            display.note("The output", "holds no image:")
            emit(output)
            return
    with Image.open(out) as saved:
        width, height = saved.size
        display.picture(saved)
    display.line()
    display.note("Saved", f"{out.absolute()} ({width} x {height})")
    display.note("The code", steps.__file__)


def _make_demo(prompt: str, image: Path | None, filter_name: str | None, live: str | None) -> Demo:
    if image is not None:
        try:
            read_image(image.read_bytes())
        except OSError as error:
            raise UsageError(f"--image {image}: {error.strerror or error}") from error
        except InvalidImageError as error:
            raise UsageError(f"--image {image} is {error}") from error
    if live is None:
        name = _DEFAULT_FILTER if filter_name is None else filter_name
        if name not in FILTERS:
            raise UsageError(f"--filter must be one of {', '.join(FILTERS)}, got {name!r}")
        return partial(steps.run_demo, image or make_gradient(prompt, IMAGE_SIZE), name)
    parse_endpoint(live)
    if filter_name is not None:
        raise UsageError("--filter cannot be combined with --live: it needs the emulated platform")
    arguments: dict[str, Any] = {"prompt": prompt}
    if image is not None:
        arguments["image_url"] = image
    return partial(steps.run_live_demo, live, arguments)
