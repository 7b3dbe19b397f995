"""The endpoint that the demo calls: an image app as it runs on the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpx
from PIL import Image
from pydantic import BaseModel, Field

from fal_async import FalClientError, encode_image
from fal_async._protocol.downloads import decode_data_url, is_data_url
from fal_async.cli._demo import images
from fal_async.cli._demo.images import FILTERS, InvalidImageError, make_gradient, read_image
from fal_async.emulator import AppError, Emulator, Job

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["IMAGE_SIZE", "PHOTO", "register_image_app"]

PHOTO: Final = "demo/photo"
#: The width and the height of a generated image in pixels.
IMAGE_SIZE: Final = (768, 512)

#: The width and the height of an image generated in a realtime session in pixels.
_REALTIME_SIZE: Final = (192, 128)
#: The widths of the previews in pixels, and the share of noise in each.
_PREVIEWS: Final = ((24, 0.75), (72, 0.5), (216, 0.25))
#: The standard deviation of the noise.
_NOISE: Final = 96
#: The pause after each step in seconds: a model takes longer, and the progress stays readable.
_STEP_DELAY: Final = 0.1


class ImageInput(BaseModel):
    """The input of a job.

    Attributes:
        prompt: The text that determines the generated image.
        image_url: The image to edit, as a data URL or as a file of the platform. ``None`` generates
            an image.
        filter: The name of the filter to apply.
    """

    prompt: str = Field(default="", max_length=2000)
    image_url: str | None = None
    filter: str = "none"


class RealtimeImageInput(BaseModel):
    """A request of a realtime session.

    Attributes:
        prompt: The text that determines the generated image.
        image: The content of the image file to edit. ``None`` generates an image.
        filter: The name of the filter to apply.
    """

    prompt: str = Field(default="", max_length=2000)
    image: bytes | None = None
    filter: str = "none"


def register_image_app(platform: Emulator) -> None:
    """Register the image app as ``demo/photo``: jobs one at a time, a stream, and realtime."""
    app = _ImageApp(platform)
    platform.register(PHOTO, app.run, concurrency=1)
    platform.register(f"{PHOTO}/stream", app.stream)
    platform.realtime(f"{PHOTO}/realtime")(app.realtime)


class _ImageApp:
    """An app that generates and filters images and stores them on the platform's CDN."""

    def __init__(self, platform: Emulator) -> None:
        self._platform = platform

    def run(self, arguments: ImageInput, job: Job) -> dict[str, Any]:
        """Generate or load an image and apply a filter to it."""
        apply = _find_filter(arguments.filter)
        original = self._load_image(arguments, job)
        _pause(job)
        job.log(f"applying the filter {arguments.filter!r}")
        image = apply(original).convert("RGB")
        _pause(job)
        job.log("encoding the image as PNG")
        stored = self._store(image)
        _pause(job)
        return {"images": [stored], "prompt": arguments.prompt}

    def stream(self, arguments: ImageInput, job: Job) -> Generator[dict[str, Any]]:
        """Send previews of growing size; the last event holds the image itself."""
        apply = _find_filter(arguments.filter)
        image = apply(self._load_image(arguments, job)).convert("RGB")
        previews = [preview for preview in _PREVIEWS if preview[0] < image.width]
        steps = len(previews) + 1
        for step, (width, noise) in enumerate(previews, 1):
            _pause(job)
            small = images.resize(image, (width, max(1, round(width * image.height / image.width))))
            grain = Image.merge("RGB", [Image.effect_noise(small.size, _NOISE) for _ in "RGB"])
            preview = Image.blend(small, grain, noise)
            file = {"url": encode_image(preview), **_describe(preview, "image/jpeg")}
            yield {"step": step, "steps": steps, "image": file}
        _pause(job)
        yield {"step": steps, "steps": steps, "image": self._store(image)}

    def realtime(self, arguments: RealtimeImageInput) -> dict[str, Any]:
        """Return a small image with a filter at once."""
        apply = _find_filter(arguments.filter)
        if arguments.image is None:
            original = make_gradient(arguments.prompt, _REALTIME_SIZE)
        else:
            original = read_image(arguments.image)
        image = apply(original).convert("RGB")
        content = images.encode_image(image, "JPEG")
        return {"images": [{"content": content, **_describe(image, "image/jpeg")}]}

    def _load_image(self, arguments: ImageInput, job: Job) -> Image.Image:
        url = arguments.image_url
        if url is None:
            job.log(f"drawing a gradient for {arguments.prompt!r}")
            return make_gradient(arguments.prompt, IMAGE_SIZE)
        job.log("loading the image")
        try:
            if is_data_url(url):
                return read_image(decode_data_url(url)[1])
            if url in self._platform.files:
                return read_image(httpx.get(url, trust_env=False).raise_for_status().content)
        except (InvalidImageError, FalClientError, httpx.HTTPError) as error:
            raise _invalid_field("image_url", "image_load_error", str(error)) from error
        message = "neither a data URL nor a file of this platform"
        raise _invalid_field("image_url", "image_load_error", message)

    def _store(self, image: Image.Image) -> dict[str, Any]:
        content = images.encode_image(image, "PNG")
        url = self._platform.store(content, "image/png", "picture.png")
        return {"url": url, "file_size": len(content), **_describe(image, "image/png")}


def _find_filter(name: str) -> Callable[[Image.Image], Image.Image]:
    apply = FILTERS.get(name)
    if apply is None:
        raise _invalid_field("filter", "one_of", f"unknown filter {name!r}")
    return apply


def _describe(image: Image.Image, content_type: str) -> dict[str, Any]:
    return {"content_type": content_type, "width": image.width, "height": image.height}


def _invalid_field(field: str, kind: str, message: str) -> AppError:
    return AppError(422, [{"loc": ["body", field], "msg": message, "type": kind}])


def _pause(job: Job) -> None:
    if job.cancellation.wait_sync(_STEP_DELAY):
        raise AppError(499, "the job was cancelled")
