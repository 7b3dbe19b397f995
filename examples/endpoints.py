"""The endpoints that the examples call, for an emulator.

python -m fal_async emulate --app examples.endpoints:register
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any

from fal_async.emulator import AppError, Emulator, Job

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A white image of one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5ErkJggg=="
)


def register(fal: Emulator) -> None:
    """Register a model that draws, one that writes, one that edits, and a realtime app."""

    def draw(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        match arguments["prompt"]:
            case "":
                detail = {"loc": ["body", "prompt"], "msg": "too short", "type": "too_short"}
                raise AppError(422, [detail])
            case "slow":
                job.cancellation.wait_sync(60)
        job.log(f"drawing {arguments['prompt']}")
        return {
            "images": [{"url": fal.store(PNG, "image/png"), "content_type": "image/png"}],
            "seed": arguments.get("seed", 7),
        }

    def write(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
        text = ""
        for word in ("Foxes", " are", " red", "."):
            time.sleep(0.01)
            text += word
            yield {"output": text, "partial": word != "."}

    def edit(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"image": {"url": arguments["image_url"], "content_type": "image/png"}}

    def echo(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    fal.register("fal-ai/flux/dev", draw)
    fal.register("fal-ai/any-llm", write)
    fal.register("acme/edit", edit)
    fal.realtime("acme/live")(echo)
