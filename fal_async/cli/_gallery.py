"""The command ``demo`` around the demo: what goes in, and where the picture comes out."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx

from fal_async._protocol.endpoint import parse_endpoint
from fal_async.cli import demo
from fal_async.cli._filters import FILTERS
from fal_async.cli._output import emit
from fal_async.cli._pictures import (
    NoPictureError,
    as_data_uri,
    can_be_saved_as,
    from_data_uri,
    picture_url,
    read_picture,
    save_picture,
)
from fal_async.cli._problems import BadInputError
from fal_async.cli._screen import Screen
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["exhibit"]

_DEFAULT_FILTER: Final = "dream"
#: Seconds of silence after which fetching a picture is given up.
_FETCH_TIMEOUT: Final = 60.0
#: Characters of a URL that an error shows.
_SHOWN: Final = 80


def exhibit(
    *, prompt: str, image: Path | None, filter_name: str | None, out: Path, live: str | None
) -> None:
    """Check what was given, show the demo, and keep its picture."""
    if live is not None:
        parse_endpoint(live)
    arguments = _arguments(prompt, image)
    _check_out(out)
    screen = Screen(sys.stdout)
    if live is None:
        arguments["filter"] = _checked_filter(filter_name or _DEFAULT_FILTER)
        output = anyio.run(demo.demonstrate, arguments, screen)
    elif filter_name is not None:
        raise BadInputError("--filter is for the emulated platform, so it cannot go with --live")
    else:
        output = anyio.run(demo.demonstrate_live, live, arguments, screen)
    _keep(output, out, screen)


def _arguments(prompt: str, image: Path | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {"prompt": prompt}
    if image is not None:
        try:
            picture = read_picture(image.read_bytes())
        except OSError as error:
            raise BadInputError(f"--image {image}: {error.strerror or error}") from error
        except NoPictureError as error:
            raise BadInputError(f"--image {image} is {error}") from error
        arguments["image_url"] = as_data_uri(picture, "JPEG")
    return arguments


def _checked_filter(name: str) -> str:
    if name not in FILTERS:
        raise BadInputError(f"--filter {name}: there are {', '.join(FILTERS)}")
    return name


def _check_out(out: Path) -> None:
    folder = out.absolute().parent
    if not can_be_saved_as(out.suffix):
        raise BadInputError(f"--out {out}: the name must end like a picture's, such as .png")
    if not folder.is_dir():
        raise BadInputError(f"--out {out}: there is no folder {folder}")
    if out.is_dir() or not os.access(folder, os.W_OK):
        raise BadInputError(f"--out {out} cannot be written")


def _keep(output: object, out: Path, screen: Screen) -> None:
    url = picture_url(output)
    if url is None:
        screen.note("The output", "holds no picture; here it is:")
        emit(output)
        return
    try:
        picture = read_picture(anyio.run(_contents, url))
    except NoPictureError as error:
        raise FalClientError(f"{url[:_SHOWN]} is {error}") from error
    save_picture(picture, out)
    screen.thumbnail(picture)
    screen.note("Saved", f"{out.absolute()} ({picture.width} x {picture.height})")
    screen.note("The code", demo.__file__)


async def _contents(url: str) -> bytes:
    """What is at a URL that a model gave; the key is not sent there."""
    if url.startswith("data:"):
        return from_data_uri(url)
    try:
        async with httpx.AsyncClient(timeout=_FETCH_TIMEOUT, follow_redirects=True) as client:
            reply = await client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FalClientError(f"{url} cannot be fetched: {error!r}") from error
    if not reply.is_success:
        raise FalClientError(f"{url} cannot be fetched: HTTP {reply.status_code}")
    return reply.content
