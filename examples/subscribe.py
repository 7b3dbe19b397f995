"""Generate an image, show how the job is doing, and save the result."""

from __future__ import annotations

import asyncio
import sys

import fal_async
from fal_async import Completed, FalClientHTTPError, FalClientTimeoutError, InProgress, Queued

MODEL = "fal-ai/flux/dev"


def show(status: fal_async.Status) -> None:
    """Print a status; each log line arrives once."""
    match status:
        case Queued(position):
            print(f"waiting, {position} jobs ahead")
        case InProgress(logs) | Completed(logs):
            for line in logs:
                print("  " + line["message"])


async def main(prompt: str) -> int:
    """Draw the prompt."""
    try:
        result = await fal_async.subscribe(
            MODEL, {"prompt": prompt}, with_logs=True, on_queue_update=show, client_timeout=120
        )
    except FalClientTimeoutError as error:
        print(f"gave up after {error.timeout:g} s; the job is cancelled", file=sys.stderr)
        return 1
    except FalClientHTTPError as error:
        print(error, file=sys.stderr)
        return 1
    for number, image in enumerate(result.files()):
        print("saved", await image.save(f"image-{number}.png"))
    print(f"request {result.request_id}, billed {result.billable_units} units")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(" ".join(sys.argv[1:]) or "a lighthouse at dawn")))
