"""Submit jobs in one run of the program, and collect them in another.

python submit_and_collect.py submit "a fox" "a hen"
python submit_and_collect.py collect
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import fal_async

MODEL = "fal-ai/flux/dev"
JOBS = Path("jobs.json")


def load() -> list[dict[str, Any]]:
    """Return the jobs of earlier runs."""
    return json.loads(JOBS.read_text()) if JOBS.exists() else []


def store(jobs: list[dict[str, Any]]) -> None:
    """Write the jobs for later runs."""
    JOBS.write_text(json.dumps(jobs, indent=2))


async def submit(prompts: list[str]) -> None:
    """Queue a job for each prompt, and store its handle before anything else happens."""
    jobs = load()
    for prompt in prompts:
        handle = await fal_async.submit(MODEL, {"prompt": prompt})
        jobs.append({"prompt": prompt, "handle": handle.to_dict()})
        store(jobs)
        print(f"{prompt}: {handle.request_id}")


async def collect() -> None:
    """Wait for each job. Leaving early leaves the jobs alone: run it again later."""
    for job in load():
        handle = fal_async.attach(job["handle"])
        try:
            result = await handle.get(timeout=600)
        except fal_async.FalClientError as error:
            print(f"{job['prompt']}: {error}")
        else:
            print(f"{job['prompt']}: {result['images'][0]['url']}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["submit", *prompts] if prompts:
            asyncio.run(submit(prompts))
        case ["collect"]:
            asyncio.run(collect())
        case _:
            sys.exit(__doc__)
