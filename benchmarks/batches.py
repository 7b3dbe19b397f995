"""The jobs that are paid twice when a batch is killed, and the CPU of a job without a kill."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.killed import FAULTS, line_count, platform, start, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

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
                done.add(n)
        await asyncio.gather(*[draw(n) for n in range(count) if n not in done])
    print(len(done))
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
                    done.add(n)
            async with anyio.create_task_group() as group:
                for n in set(range(count)) - done:
                    group.start_soon(draw, n)
    print(len(done))
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
    print(batch.summary.ok)
anyio.run(main, int(sys.argv[1]), sys.argv[2])
"""


@contextmanager
def _journal(kind: str) -> Generator[str]:
    """Make a journal: the path of a file, or the URL of a database."""
    if kind == "postgres":
        from tests.support.postgres import running_server

        with running_server() as server:
            yield server.new_schema()
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield str(Path(folder) / "journal")


def _kill(program: str, journal: str = "file", processes: int = 1) -> Callable[[Work], Measures]:
    """Return a leg that runs a program to its end, and kills it several times before.

    Args:
        program: The program. It prints the number of inputs whose outcome it has.
        journal: ``"file"`` or ``"postgres"``.
        processes: The number of processes that share the journal. The first of them is killed.
    """

    def measure(work: Work) -> Measures:
        from fal_async.emulator import Fault

        count, kills = work["jobs"], work["kills"]
        with _journal(journal) as path, platform(lambda n: 0.1 + n % 7 * 0.03) as (fal, executions):
            for number, fault in enumerate(FAULTS):
                share = work["faults_percent"] / 100 / len(FAULTS)
                fal.fail(None, Fault(share=share, seed=number, **fault))
            started, cpu = time.perf_counter(), os.times()
            running = [start(fal, program, count, path) for _ in range(processes)]
            unsure: set[tuple[str, int]] = set()
            for kill in range(kills):
                wait_for(running[0], executions, count * (kill + 1) // (kills + 2))
                running[0].kill()
                running[0].communicate()
                if program == _BATCH:
                    unsure |= _unsure_attempts(path)
                running[0] = start(fal, program, count, path)
            outputs = [process.communicate()[0] for process in running]
            used = os.times()
        collected = min(int(output or 0) for output in outputs)
        measures = {"unsure": len(unsure)} if program == _BATCH else {}
        return measures | {
            "units": count,
            "twice": executions.total() - len(executions),
            "missing": count - collected,
            "lines": line_count(program),
            "wall_s": time.perf_counter() - started,
            "cpu_us": 1e6
            * (used.children_user + used.children_system - cpu.children_user - cpu.children_system)
            / count,
        }

    return measure


def _unsure_attempts(path: str) -> set[tuple[str, int]]:
    """Return the inputs that ended processes have left unsure, with their attempts."""
    from fal_async import Journal

    with Journal(path, shared=True) as journal:
        live = {run.number for run in journal.runs()}
        return {
            (entry.key, entry.attempts)
            for state in ("submitting", "unsure")
            for entry in journal.entries(state)
            if entry.run not in live
        }


_OURS, _LOOP = "ours, batch", "ours, subscribe in a task group"
_POSTGRES, _SHARED = "ours, batch on PostgreSQL", "ours, two processes on PostgreSQL"
_DATABASE = (("starlette", "psycopg", "pytest"), ("initdb",))

BENCHMARK = Benchmark(
    name="batches",
    title=__doc__ or "",
    baseline="fal_client by hand",
    legs=(
        Leg("fal_client by hand", _kill(_BY_HAND), ("fal_client", "starlette")),
        Leg(_LOOP, _kill(_SUBSCRIBE), ("starlette",)),
        Leg(_OURS, _kill(_BATCH), ("starlette",)),
        Leg(_POSTGRES, _kill(_BATCH, "postgres"), *_DATABASE),
        Leg(_SHARED, _kill(_BATCH, "postgres", processes=2), *_DATABASE),
    ),
    cases=(
        Case("5 kills", {"jobs": 5000, "kills": 5, "faults_percent": 0}, patience=600),
        Case("faults", {"jobs": 10_000, "kills": 0, "faults_percent": 20}, patience=900),
        Case("no kill", {"jobs": 3000, "kills": 0, "faults_percent": 0}, patience=400),
    ),
    quick=(Case("1 kill", {"jobs": 40, "kills": 1, "faults_percent": 0}),),
    columns=(
        Column("twice", "paid twice"),
        Column("missing", "without outcome"),
        Column("unsure", "unsure after kills"),
        Column("lines", "lines"),
        Column("wall_s", "wall s"),
        Column("cpu_us", "CPU us"),
    ),
    bars=(
        *(
            Bar(f"{title}, {case}", measure, case, leg, at_most=0)
            for measure, title in (("twice", "jobs paid twice"), ("missing", "no outcome"))
            for case in ("5 kills", "faults")
            for leg in (_OURS, _POSTGRES, _SHARED)
        ),
        *(
            Bar("inputs that are unsure after kills", "unsure", "5 kills", leg, at_most=5 * 8)
            for leg in (_OURS, _POSTGRES, _SHARED)
        ),
        Bar("CPU of a job, of that of subscribe", "cpu_us", "no kill", _OURS, against=_LOOP,
            at_most=1.3),
    ),
)  # fmt: skip
