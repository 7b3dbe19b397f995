"""Start one job for each row of a file, save the images, and continue after any interruption."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

import fal_async


async def main(rows: Path) -> None:
    """Draw the prompts of the rows. The same call again starts only what is missing."""
    async with fal_async.AsyncClient() as client:
        batch = client.batch(
            "fal-ai/flux/dev",
            rows,
            journal="foxes.db",
            output="foxes.jsonl",
            save="foxes/{index}-{n}{ext}",
            budget=25,
            progress=True,
        )
        async with batch:
            async for job in batch:
                if job.error is not None:
                    print(f"row {job.index}: {job.error.message}")
    summary = batch.summary
    print(f"{summary.ok} ok, {summary.failed} failed, {summary.resumed} from earlier runs")


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1] if len(sys.argv) > 1 else "prompts.jsonl"))
