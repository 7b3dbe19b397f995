"""Draw the rows of a Ray dataset: a row that is executed again finds its job in the journal."""

from __future__ import annotations

import sys
from pathlib import Path

import ray

import fal_async


def main(rows: int, journal: Path) -> None:
    """Draw in two actors. A killed worker costs nothing: the next one attaches to its jobs."""
    draw = {
        "application": "fal-ai/flux/dev",
        "journal": str(journal.resolve()),
        "arguments": {"prompt": "text"},
    }
    dataset = ray.data.from_items([{"text": f"a fox, number {n}"} for n in range(rows)])
    drawn = dataset.map(fal_async.Once, fn_constructor_kwargs=draw, concurrency=2).take_all()
    failed = [row for row in drawn if row["fal_error"]]
    print(f"{len(drawn) - len(failed)} ok, {len(failed)} failed")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, Path("foxes.db"))
