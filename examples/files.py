"""Send a local image to a model, with progress, and save the edited image beside it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import fal_async
from fal_async import StorageSettings

MODEL = "acme/edit"


def show(sent: int, size: int | None) -> None:
    """Print the progress of the upload."""
    print(f"uploaded {sent:,} of {size or sent:,} bytes")


async def main(path: Path) -> None:
    """Edit an image, which the platform keeps for a day."""
    async with fal_async.AsyncClient() as client:
        url = await client.upload_file(
            path, lifecycle=StorageSettings(expires_in="1d"), on_progress=show
        )
        result = await client.subscribe(MODEL, {"image_url": url, "prompt": "at night"})
        for file in result.files():
            target = path.with_stem(f"{path.stem}-edited")
            print("saved", await file.save(target, max_bytes=100_000_000))

        # A path in the arguments does the same without the progress and the day.
        await client.subscribe(MODEL, {"image_url": path, "prompt": "in the rain"})


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
