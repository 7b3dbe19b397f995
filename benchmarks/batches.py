"""The jobs that are paid twice when a batch is killed, and the CPU of a job without a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK"]

#: A careful loop over the official client: it stores the id of each job before it waits.
_BY_HAND = """
import asyncio, json, os, sys
from pathlib import Path
import fal_client
from fal_client import client as official
base = os.environ["FAL_ASYNC_BASE_URL"]
official.QUEUE_URL_FORMAT = base + "/queue/"
async def main(count, path):
    jobs, done, slots = {}, set(), asyncio.Semaphore(200)
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        done.add(entry["n"]) if entry.get("done") else jobs.update({entry["n"]: entry["id"]})
    client = fal_client.AsyncClient(key=os.environ["FAL_KEY"])
    with path.open("a") as journal:
        def note(**entry):
            journal.write(json.dumps(entry) + chr(10))
            journal.flush()
        async def draw(n):
            async with slots:
                if n in jobs:
                    handle = await client.get_handle("acme/app", jobs[n])
                else:
                    handle = await client.submit("acme/app", {"n": n})
                    note(n=n, id=handle.request_id)
                await handle.get()
                note(n=n, done=True)
        await asyncio.gather(*[draw(n) for n in range(count) if n not in done])
asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
"""
#: The loop over `subscribe` that stores the results alone.
_SUBSCRIBE = """
import sys
from pathlib import Path
import anyio
from fal_async import AsyncClient
async def main(count, path):
    done = set(map(int, path.read_text().split())) if path.exists() else set()
    slots = anyio.Semaphore(200)
    async with AsyncClient() as client:
        with path.open("a") as journal:
            async def draw(n):
                async with slots:
                    await client.subscribe("acme/app", {"n": n})
                    print(n, file=journal, flush=True)
            async with anyio.create_task_group() as group:
                for n in set(range(count)) - done:
                    group.start_soon(draw, n)
anyio.run(main, int(sys.argv[1]), Path(sys.argv[2]))
"""
_BATCH = """
import sys
import anyio
from fal_async import AsyncClient
async def main(count, path):
    rows = ({"n": n} for n in range(count))
    async with AsyncClient() as client:
        async with client.batch("acme/app", rows, journal=path, in_flight=200) as batch:
            await batch.run()
anyio.run(main, int(sys.argv[1]), sys.argv[2])
"""


def _kill(program: str) -> Callable[[Work], Measures]:
    """Return a leg that runs a program to its end, and kills it several times before."""

    def measure(work: Work) -> Measures:
        from fal_async.emulator import Emulator

        executions: Counter[int] = Counter()
        count, kills = work["jobs"], work["kills"]
        with Emulator() as fal, tempfile.TemporaryDirectory() as folder:

            @fal.endpoint("acme/app")
            async def app(arguments: dict[str, Any]) -> dict[str, Any]:
                executions[arguments["n"]] += 1
                await anyio.sleep(0.1 + arguments["n"] % 7 * 0.03)
                return arguments

            command = [sys.executable, "-c", program, str(count), str(Path(folder) / "journal")]
            environment = {**os.environ, **fal.environ}
            started = time.perf_counter()
            cpu = os.times()
            for kill in range(kills + 1):
                with subprocess.Popen(command, env=environment) as process:
                    if kill < kills:
                        _wait_for(process, executions, count * (kill + 1) // (kills + 2))
                        process.kill()
            used = os.times()
        return {
            "units": count,
            "twice": executions.total() - len(executions),
            "missing": count - len(executions),
            "lines": program.strip().count("\n") + 1,
            "wall_s": time.perf_counter() - started,
            "cpu_us": 1e6
            * (used.children_user + used.children_system - cpu.children_user - cpu.children_system)
            / count,
        }

    return measure


def _wait_for(process: subprocess.Popen[bytes], executions: Counter[int], total: int) -> None:
    while executions.total() < total:
        if process.poll() is not None:
            raise RuntimeError(f"the program has ended with status {process.returncode}")
        time.sleep(0.005)


_OURS, _LOOP = "ours, batch", "ours, subscribe in a task group"

BENCHMARK = Benchmark(
    name="batches",
    title=__doc__ or "",
    baseline="fal_client by hand",
    legs=(
        Leg("fal_client by hand", _kill(_BY_HAND), ("fal_client", "starlette")),
        Leg(_LOOP, _kill(_SUBSCRIBE), ("starlette",)),
        Leg(_OURS, _kill(_BATCH), ("starlette",)),
    ),
    cases=(
        Case("5 kills", {"jobs": 5000, "kills": 5}, patience=400),
        Case("no kill", {"jobs": 3000, "kills": 0}, patience=400),
    ),
    quick=(Case("1 kill", {"jobs": 40, "kills": 1}),),
    columns=(
        Column("twice", "paid twice"),
        Column("missing", "missing"),
        Column("lines", "lines"),
        Column("wall_s", "wall s"),
        Column("cpu_us", "CPU us"),
    ),
    bars=(
        Bar("jobs of a killed batch that are paid twice", "twice", "5 kills", _OURS, at_most=0),
        Bar("jobs of a killed batch that are missing", "missing", "5 kills", _OURS, at_most=0),
        Bar("CPU of a job, of that of subscribe", "cpu_us", "no kill", _OURS, against=_LOOP,
            at_most=1.3),
    ),
)  # fmt: skip
