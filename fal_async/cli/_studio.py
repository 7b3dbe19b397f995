"""The endpoints that the demo calls: apps as they run behind the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from fal_async.cli._drawing import draw
from fal_async.cli._filters import FILTERS
from fal_async.cli._pictures import NoPictureError, as_data_uri, from_data_uri, read_picture
from fal_async.emulator import AppError, Job

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PHOTO", "PhotoInput", "photo"]

PHOTO: Final = "demo/photo"

_CANVAS: Final = (768, 512)
#: Seconds of rest after a step: a model would be busy for longer, and people like to watch.
_REST: Final = 0.1


class PhotoInput(BaseModel):
    """What `photo` takes.

    Attributes:
        prompt: What to draw, unless there is a picture.
        image_url: The picture to work on, as a data URI; ``None`` to draw one.
        filter: What to do with it, by name.
    """

    prompt: str = Field(default="", max_length=2000)
    image_url: str | None = None
    filter: str = "none"


def photo(arguments: PhotoInput, job: Job) -> dict[str, Any]:
    """Draw a picture, or take the given one, and apply a filter to it."""
    apply = FILTERS.get(arguments.filter)
    if apply is None:
        raise _refusal("filter", "one_of", f"there is no such filter: {arguments.filter!r}")
    original = _original(arguments, job)
    _rest(job)
    job.log(f"applying the filter {arguments.filter!r}")
    picture = apply(original).convert("RGB")
    _rest(job)
    job.log("encoding the picture as PNG")
    url = as_data_uri(picture, "PNG")
    _rest(job)
    image = {
        "url": url,
        "content_type": "image/png",
        "width": picture.width,
        "height": picture.height,
    }
    return {"images": [image], "prompt": arguments.prompt}


def _original(arguments: PhotoInput, job: Job) -> Image.Image:
    if arguments.image_url is None:
        job.log(f"drawing {arguments.prompt!r}")
        return draw(arguments.prompt, _CANVAS)
    job.log("developing the picture")
    try:
        return read_picture(from_data_uri(arguments.image_url))
    except NoPictureError as error:
        raise _refusal("image_url", "image_load_error", str(error)) from error


def _refusal(field: str, kind: str, message: str) -> AppError:
    return AppError(422, [{"loc": ["body", field], "msg": message, "type": kind}])


def _rest(job: Job) -> None:
    if job.cancellation.wait_sync(_REST):
        raise AppError(499, "the job was cancelled")
