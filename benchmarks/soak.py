"""A batch at a steady pace with faults: `python -m benchmarks.soak`.

The emulator runs in another process, so the figures are those of the client alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from benchmarks.killed import FAULTS
from benchmarks.memory import memory
from benchmarks.work import cpu_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fal_async import Batch

_PLATFORM: Final = """
import json, signal, sys
import anyio
from fal_async.emulator import Emulator, Fault
executions = 0
with Emulator() as fal:
    @fal.endpoint("acme/app")
    async def app(arguments):
        global executions
        executions += 1
        await anyio.sleep(0.2 + arguments["n"] % 9 * 0.1)
        return arguments
    for fault in json.loads(sys.argv[1]):
        fal.fail(None, Fault(**fault))
    print(json.dumps(fal.environ), flush=True)
    sys.stdin.readline()
print(executions)
"""
_DESCRIPTORS: Final = Path("/proc/self/fd")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--per-second", type=float, default=50.0, help="the jobs of a second")
    parser.add_argument("--faults", type=float, default=0.1, help="the share of failed exchanges")
    parser.add_argument("--lines", type=int, default=10, help="the number of lines to print")
    options = parser.parse_args()
    share = options.faults / len(FAULTS)
    faults = [{**fault, "share": share, "seed": seed} for seed, fault in enumerate(FAULTS)]
    command = [sys.executable, "-c", _PLATFORM, json.dumps(faults)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as platform:
        assert platform.stdout is not None
        os.environ.update(json.loads(platform.stdout.readline()))
        jobs = anyio.run(_soak, options.minutes * 60, options.per_second, options.lines)
        executions = int(platform.communicate("\n")[0])
    print(f"{jobs:,} jobs, {executions - jobs:,} more were paid")


async def _soak(seconds: float, per_second: float, lines: int) -> int:
    """Run a batch, and print the state of the process from time to time; return the jobs."""
    from fal_async import AsyncClient, Journal

    ended, unsure = 0.0, 0

    async def inputs() -> AsyncGenerator[dict[str, Any]]:
        nonlocal ended, unsure
        started = time.monotonic()
        number = 0
        while (elapsed := time.monotonic() - started) < seconds:
            if number < elapsed * per_second:
                yield {"n": number}
                number += 1
            else:
                await anyio.sleep(1 / per_second)
        ended = time.monotonic()
        unsure = (await anyio.to_thread.run_sync(journal.summary)).states.get("unsure", 0)

    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.db")
        async with AsyncClient() as client:
            async with (
                client.batch(
                    "acme/app", inputs(), journal=journal, in_flight=500, price=1.0
                ) as batch,
                anyio.create_task_group() as group,
            ):
                group.start_soon(_print_state, batch, seconds / lines)
                async for _ in batch:
                    pass
                group.cancel_scope.cancel()
            print(f"{batch.summary.ok:,} ok, {batch.summary.failed:,} failed, "
                  f"{batch.summary.unsure:,} unsure, {batch.summary.lost:,} lost")  # fmt: skip
            print(f"{unsure:,} were unsure after the last input, and all was settled "
                  f"{time.monotonic() - ended:.0f} s later")  # fmt: skip
            await anyio.to_thread.run_sync(journal.close)
            return batch.summary.ok


async def _print_state(batch: Batch, interval: float) -> None:
    print("minute     jobs  in flight  memory MB  descriptors  tasks  CPU ms a job")
    started, cpu, done = time.monotonic(), cpu_time(), 0
    while True:
        await anyio.sleep(interval)
        gc.collect()
        jobs, used = batch.progress.done, cpu_time()
        descriptors = len(list(_DESCRIPTORS.iterdir())) if _DESCRIPTORS.exists() else 0
        print(
            f"{(time.monotonic() - started) / 60:6.1f}  {jobs:7,}  {batch.progress.in_flight:9}  "
            f"{memory() / 1e6:9.1f}  {descriptors:11}  {len(asyncio.all_tasks()):5}  "
            f"{1e3 * (used - cpu) / max(1, jobs - done):12.2f}",
            flush=True,
        )
        cpu, done = used, jobs


if __name__ == "__main__":
    main()
