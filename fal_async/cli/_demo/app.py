"""The endpoint that the demo calls: an app as it runs behind the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpx
from PIL import Image
from pydantic import BaseModel, Field

from fal_async.cli._demo.images import (
    FILTERS,
    InvalidImageError,
    as_data_uri,
    draw,
    encoded,
    from_data_uri,
    read_picture,
    resized,
)
from fal_async.emulator import AppError, Emulator, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["CANVAS", "PHOTO", "register_image_app"]

PHOTO: Final = "demo/photo"
#: The size of what is drawn, in pixels.
CANVAS: Final = (768, 512)

#: The size of what is drawn in a session.
_SMALL_CANVAS: Final = (192, 128)
#: How wide previews are, in pixels, and how much of each is noise.
_PREVIEWS: Final = ((24, 0.75), (72, 0.5), (216, 0.25))
#: How far the noise is from grey.
_NOISE: Final = 96
#: Seconds of rest after a step: a model would be busy for longer, and people like to watch.
_REST: Final = 0.1


class PhotoInput(BaseModel):
    """What is to be photographed.

    Attributes:
        prompt: What to draw, unless there is a picture.
        image_url: The picture to work on, a data URI or a file of the platform; ``None`` to draw
            one.
        filter: What to do with it, by name.
    """

    prompt: str = Field(default="", max_length=2000)
    image_url: str | None = None
    filter: str = "none"


class RealtimeImageInput(BaseModel):
    """What is asked for in a session.

    Attributes:
        prompt: What to draw, unless there is a picture.
        image: The file of the picture to work on; ``None`` to draw one.
        filter: What to do with it, by name.
    """

    prompt: str = Field(default="", max_length=2000)
    image: bytes | None = None
    filter: str = "none"


def register_image_app(platform: Emulator) -> None:
    """Put the photographer behind ``demo/photo``: one job at a time, streams, and sessions."""
    studio = _ImageApp(platform)
    platform.register(PHOTO, studio.photo, concurrency=1)
    platform.register(f"{PHOTO}/stream", studio.previews)
    platform.realtime(f"{PHOTO}/realtime")(studio.look)


class _ImageApp:
    """The photographer, who keeps what he makes on the platform's CDN."""

    def __init__(self, platform: Emulator) -> None:
        self._platform = platform

    def photo(self, arguments: PhotoInput, job: Job) -> dict[str, Any]:
        """Draw a picture, or take the given one, and apply a filter to it."""
        apply = _filter(arguments.filter)
        original = self._original(arguments, job)
        _rest(job)
        job.log(f"applying the filter {arguments.filter!r}")
        picture = apply(original).convert("RGB")
        _rest(job)
        job.log("encoding the picture as PNG")
        image = self._published(picture)
        _rest(job)
        return {"images": [image], "prompt": arguments.prompt}

    def previews(self, arguments: PhotoInput, job: Job) -> Generator[dict[str, Any]]:
        """The same, with a preview after each step; the last one is the picture."""
        apply = _filter(arguments.filter)
        picture = apply(self._original(arguments, job)).convert("RGB")
        coarse = [preview for preview in _PREVIEWS if preview[0] < picture.width]
        steps = len(coarse) + 1
        for step, (width, noise) in enumerate(coarse, 1):
            _rest(job)
            yield {"step": step, "steps": steps, "image": _preview(picture, width, noise)}
        _rest(job)
        yield {"step": steps, "steps": steps, "image": self._published(picture)}

    def look(self, arguments: RealtimeImageInput) -> dict[str, Any]:
        """A small picture with a filter, at once."""
        apply = _filter(arguments.filter)
        if arguments.image is None:
            original = draw(arguments.prompt, _SMALL_CANVAS)
        else:
            original = read_picture(arguments.image)
        picture = apply(original).convert("RGB")
        content = encoded(picture, "JPEG")
        return {"images": [{"content": content, **_facts(picture, "image/jpeg")}]}

    def _original(self, arguments: PhotoInput, job: Job) -> Image.Image:
        if arguments.image_url is None:
            job.log(f"drawing {arguments.prompt!r}")
            return draw(arguments.prompt, CANVAS)
        job.log("developing the picture")
        try:
            return read_picture(self._content(arguments.image_url))
        except (InvalidImageError, httpx.HTTPError) as error:
            raise _refusal("image_url", "image_load_error", str(error)) from error

    def _content(self, url: str) -> bytes:
        if url.startswith("data:"):
            return from_data_uri(url)
        if url not in self._platform.files:
            raise InvalidImageError("neither a data URI nor a file of this platform")
        return httpx.get(url, trust_env=False).raise_for_status().content

    def _published(self, picture: Image.Image) -> dict[str, Any]:
        content = encoded(picture, "PNG")
        url = self._platform.store(content, "image/png", "picture.png")
        return {"url": url, "file_size": len(content), **_facts(picture, "image/png")}


def _filter(name: str) -> Callable[[Image.Image], Image.Image]:
    apply = FILTERS.get(name)
    if apply is None:
        raise _refusal("filter", "one_of", f"there is no such filter: {name!r}")
    return apply


def _preview(picture: Image.Image, width: int, noise: float) -> dict[str, Any]:
    small = resized(picture, (width, max(1, round(width * picture.height / picture.width))))
    grain = Image.merge("RGB", [Image.effect_noise(small.size, _NOISE) for _ in "RGB"])
    blurred = Image.blend(small, grain, noise)
    return {"url": as_data_uri(blurred, "JPEG"), **_facts(blurred, "image/jpeg")}


def _facts(picture: Image.Image, content_type: str) -> dict[str, Any]:
    return {"content_type": content_type, "width": picture.width, "height": picture.height}


def _refusal(field: str, kind: str, message: str) -> AppError:
    return AppError(422, [{"loc": ["body", field], "msg": message, "type": kind}])


def _rest(job: Job) -> None:
    if job.cancellation.wait_sync(_REST):
        raise AppError(499, "the job was cancelled")
