"""Send frames to a realtime app and measure the round trip of each."""

from __future__ import annotations

import asyncio
import sys
import time

import fal_async

APP = "acme/live"
IN_FLIGHT = 4


async def main(frames: int) -> None:
    """Keep a few frames in flight; the app receives the next while it works on one."""
    sent: dict[int, float] = {}
    free = asyncio.Semaphore(IN_FLIGHT)

    async with fal_async.AsyncClient() as client, client.realtime(APP) as session:

        async def send() -> None:
            for number in range(frames):
                await free.acquire()
                sent[number] = time.perf_counter()
                await session.send({"frame": number, "image": bytes(1000)})

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            for _ in range(frames):
                result = await session.recv()
                free.release()
                took = time.perf_counter() - sent.pop(result["frame"])
                print(f"frame {result['frame']}: {1000 * took:.1f} ms")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
