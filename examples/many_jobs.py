"""Run a large batch, write each result as it arrives, and continue where an earlier run stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

import fal_async

MODEL = "fal-ai/flux/dev"


class Batch:
    """Jobs by seed, and a file with one line for each that has succeeded."""

    def __init__(self, client: fal_async.AsyncClient, path: Path) -> None:
        self._client = client
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.done = {json.loads(line)["seed"] for line in lines}
        self.failed: dict[int, fal_async.FalClientError] = {}

    async def draw(self, seed: int) -> None:
        """Run one job. An error of it leaves the others running."""
        arguments = {"prompt": "a fox, watercolour", "seed": seed}
        try:
            result = await self._client.subscribe(MODEL, arguments)
        except fal_async.AccountLockedError:
            raise  # all others would fail as well, so this cancels them
        except fal_async.FalClientError as error:
            self.failed[seed] = error
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"seed": seed, "url": result["images"][0]["url"]}) + "\n")
        self.done.add(seed)


async def main(jobs: int, path: Path) -> None:
    """Start all jobs at once: the client limits connections, and the platform queues the rest."""
    async with fal_async.AsyncClient() as client:
        batch = Batch(client, path)
        print(f"{len(batch.done)} of {jobs} are done already")
        async with anyio.create_task_group() as group:
            for seed in set(range(jobs)) - batch.done:
                group.start_soon(batch.draw, seed)
    print(f"{len(batch.done)} succeeded, {len(batch.failed)} failed")
    for seed, error in sorted(batch.failed.items()):
        print(f"seed {seed} ({'charged' if error.started else 'not charged'}): {error}")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 100, Path("results.jsonl"))
