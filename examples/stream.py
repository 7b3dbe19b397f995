"""Print the text of a language model while the model writes it."""

from __future__ import annotations

import asyncio
import sys

from pydantic import BaseModel

import fal_async
from fal_async import StreamError, StreamInterruptedError

MODEL = "fal-ai/any-llm"


class Text(BaseModel):
    """An event of the model: the whole text so far."""

    output: str
    partial: bool = False


async def main(prompt: str) -> int:
    """Let the model continue the prompt."""
    printed = 0
    try:
        async with fal_async.stream(
            MODEL, {"prompt": prompt}, output=Text, idle_timeout=30
        ) as events:
            async for event in events:
                print(event.output[printed:], end="", flush=True)
                printed = len(event.output)
    except (StreamError, StreamInterruptedError) as error:
        print(f"\nthe text is incomplete: {error}", file=sys.stderr)
        return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(" ".join(sys.argv[1:]) or "Tell me about foxes.")))
