"""Draw with several threads, in code that does not await."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from fal_async.sync import FalClientError, SyncClient

MODEL = "fal-ai/flux/dev"


def main(prompts: list[str]) -> int:
    """Draw each prompt. Threads share the connections of the client; Ctrl-C cancels the jobs."""
    with SyncClient() as client, ThreadPoolExecutor(8) as threads:

        def draw(prompt: str) -> str:
            try:
                result = client.subscribe(MODEL, {"prompt": prompt}, client_timeout=120)
            except FalClientError as error:
                return f"failed: {error}"
            url: str = result["images"][0]["url"]
            return url

        for prompt, outcome in zip(prompts, threads.map(draw, prompts), strict=True):
            print(f"{prompt}: {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["a fox", "a hen", "a lighthouse"]))
