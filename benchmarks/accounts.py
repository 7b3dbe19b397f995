"""Batches at the limits of an account, and the size of their journals."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.memory import forget_peak, peak_memory
from benchmarks.work import cpu_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work
    from fal_async import AsyncClient
    from fal_async.batch import Job

__all__ = ["BENCHMARK"]

APP: Final = "acme/app"
#: An emulator in a process of its own. It answers each line with its counters, and the line
#: ``unlock`` puts money into the account, which is used up after so many executions.
_PLATFORM = """
import json, sys, time
import anyio
from fal_async.emulator import Emulator
limit, last = (int(word) or None for word in sys.argv[1:])
with Emulator(concurrency=limit) as fal:
    other = fal.add_account()
    url = fal.store(bytes(10_000), "image/png", "image.png")
    @fal.endpoint("acme/app")
    async def app(arguments):
        if fal.counters("acme/app").executions == last:
            fal.lock()
        await anyio.sleep(arguments["seconds"])
        images = [{"url": url}] if arguments.get("image") else []
        return {**arguments, "images": images, "ended": time.monotonic()}
    print(json.dumps({"environ": fal.environ, "other": other.key}), flush=True)
    for line in sys.stdin:
        if line == "unlock\\n":
            fal.unlock()
        counts = {route: fal.count(route) for route in ("submit", "run")}
        counts["executions"] = fal.counters("acme/app").executions
        print(json.dumps(counts), flush=True)
"""
_OPEN = """
import resource, sys, time
from fal_async import Journal
began = time.perf_counter()
with Journal(sys.argv[1]) as journal:
    assert journal.summary().total == int(sys.argv[2])
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""


class Platform:
    """The process of an emulator, whose address is in the environment of this one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        facts = self._read()
        self.other_key: str = facts["other"]
        os.environ.update(facts["environ"])

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def counts(self, command: str = "") -> dict[str, int]:
        """Return the numbers of requests and executions."""
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        counts: dict[str, int] = self._read()
        return counts


@contextmanager
def _platform(limit: int = 0, last: int = 0) -> Generator[Platform]:
    command = [sys.executable, "-c", _PLATFORM, str(limit), str(last)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Platform(process)
        finally:
            process.terminate()


def _rows(count: int) -> list[dict[str, Any]]:
    """Return inputs whose jobs take between 0.2 and 1 second."""
    return [{"n": n, "seconds": 0.2 + n * 7919 % 101 * 0.008} for n in range(count)]


async def _subscribe(client: AsyncClient, rows: list[dict[str, Any]]) -> Measures:
    slots = anyio.Semaphore(200)

    async def draw(row: dict[str, Any]) -> None:
        async with slots:
            await client.subscribe(APP, row)

    async with anyio.create_task_group() as group:
        for row in rows:
            group.start_soon(draw, row)
    return {}


async def _batch(
    client: AsyncClient, rows: list[dict[str, Any]], *, save: bool = False
) -> Measures:
    from fal_async import Journal

    with tempfile.TemporaryDirectory() as folder:
        journal, images = Journal(f"{folder}/journal.db"), Path(folder) / "images"
        if save:
            rows = [{**row, "image": True} for row in rows]
        target = f"{images}/{{index}}{{ext}}" if save else None
        async with client.batch(APP, rows, journal=journal, save=target) as batch:
            summary = await batch.run()
        assert summary.ok == len(rows)
        assert not save or len(list(images.iterdir())) == len(rows)
        await anyio.to_thread.run_sync(journal.close)
    return {"lines": journal.changes / journal.commits}


def _at_the_limit(
    run: Callable[[AsyncClient, list[dict[str, Any]]], Awaitable[Measures]], longer: float = 1.0
) -> Callable[[Work], Measures]:
    """Return a leg with 200 runners; its wall clock is that without a pause of any of them.

    Args:
        run: Runs the jobs of all inputs.
        longer: The factor of the duration of a job.
    """

    async def measure(count: int) -> Measures:
        from fal_async import AsyncClient

        rows = [{**row, "seconds": row["seconds"] * longer} for row in _rows(count)]
        least = sum(row["seconds"] for row in rows) / 200
        async with AsyncClient() as client:
            await client.subscribe(APP, {"seconds": 0})
            forget_peak()
            began, used = time.perf_counter(), cpu_time()
            measures = await run(client, rows)
            wall = time.perf_counter() - began
        return measures | {
            "units": count,
            "wall_s": wall,
            "of_least": wall / least,
            "cpu_us": 1e6 * (cpu_time() - used) / count,
            "peak_mb": peak_memory() / 1e6,
        }

    def leg(work: Work) -> Measures:
        with _platform(200):
            return anyio.run(measure, work["jobs"])

    return leg


def _locked(work: Work) -> Measures:
    """Use up the balance of an account of 20 runners after two fifths of the jobs."""
    from fal_async import AccountLockedError, AsyncClient

    count = work["jobs"] // 10
    began = time.perf_counter()

    async def run(path: str) -> int:
        async with (
            AsyncClient() as client,
            client.batch(APP, _rows(count), journal=path) as batch,
        ):
            with suppress(AccountLockedError):
                await batch.run()
            return batch.summary.ok

    with _platform(20, count * 2 // 5) as platform, tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/journal.db"
        done = anyio.run(run, path)
        refused = platform.counts("unlock")["submit"] - done
        in_all = anyio.run(run, path)
        executions = platform.counts()["executions"]
    return {
        "units": count,
        "wall_s": time.perf_counter() - began,
        "refused": refused,
        "twice": executions - count,
        "missing": count - in_all,
    }


def _long_and_short(work: Work) -> Measures:
    """Run short jobs beside long ones: of the same endpoint and key, and of another key."""
    from fal_async import AsyncClient

    began = time.perf_counter()
    late: dict[str, float] = {}

    async def run_short(client: AsyncClient, name: str) -> None:
        rows = [{"n": n, "seconds": 1.0} for n in range(work["short"])]
        async with client.batch(APP, rows, in_flight=1000) as batch:
            async for job in batch:
                late[name] = max(late.get(name, 0.0), _lateness(job))

    async def run(platform: Platform) -> None:
        async with AsyncClient() as client, anyio.create_task_group() as group:
            rows = [{"n": n, "seconds": 60.0} for n in range(work["long"])]
            async with client.batch(APP, rows, in_flight=work["long"], grace=0) as batch:
                while platform.counts()["executions"] < work["long"]:  # noqa: ASYNC110 -- in a process
                    await anyio.sleep(0.1)
                async with anyio.create_task_group() as tenants:
                    tenants.start_soon(run_short, client, "late_s")
                    other = client.with_options(key=platform.other_key)
                    tenants.start_soon(run_short, other, "other_late_s")
                batch.stop()
            group.cancel_scope.cancel()

    with _platform() as platform:
        anyio.run(run, platform)
    return {"units": 2 * work["short"], "wall_s": time.perf_counter() - began, **late}


def _lateness(job: Job) -> float:
    assert job.ok, job.error
    return time.monotonic() - float(job.output["ended"])


def _direct(work: Work) -> Measures:
    """Run inputs directly with 20 runners, where 200 at once are wanted."""
    from fal_async import AsyncClient

    count = work["jobs"] // 10
    began = time.perf_counter()

    async def run() -> int:
        async with (
            AsyncClient() as client,
            client.batch(APP, _rows(count), via="run", in_flight=200) as batch,
        ):
            return (await batch.run()).ok

    with _platform(20) as platform:
        ok = anyio.run(run)
        requests = platform.counts()["run"]
    return {
        "units": count,
        "wall_s": time.perf_counter() - began,
        "missing": count - ok,
        "refused": requests - count,
        "refused_share": (requests - count) / requests,
    }


def _journal(work: Work) -> Measures:
    """Open the journal of so many jobs that have ended."""
    from fal_async.batch.entries import Begin, Update
    from fal_async.batch.journal import open_store

    count = 50 * work["jobs"]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/journal.db"
        store = open_store(path, fsync=False)
        store.open(exclusive=True)
        for start in range(0, count, 1000):
            changes: list[Begin | Update] = []
            for n in range(start, min(count, start + 1000)):
                digest = hashlib.sha256(str(n).encode()).digest()
                key, values = digest.hex()[:16], {"state": "ended", "units": 1.0}
                ids = {"request_id": str(uuid.UUID(bytes=digest[:16])), "ended_at": 2e9 + n}
                changes += [Begin(key, APP, n, digest, 2e9), Update(key, 1, values | ids)]
            store.commit(changes)
        store.close()
        size = Path(path).stat().st_size
        command = [sys.executable, "-c", _OPEN, path, str(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, megabytes = map(float, done.stdout.split())
    return {"units": count, "wall_s": seconds, "peak_mb": megabytes, "bytes": size / count}


_LOOP, _OURS = "subscribe in a task group", "batch"
_SAVED = "batch, images saved"
_LOCKED, _MIXED = "batch, locked at 40 %", "batch, long and short jobs"
_DIRECT, _JOURNAL = "batch, direct runs", "journal with 50 times as many"
_CASE = "20,000 jobs"


def _bar(promise: str, measure: str, leg: str, at_most: float, against: str | None = None) -> Bar:
    return Bar(promise, measure, _CASE, leg, against=against, at_most=at_most)


BENCHMARK = Benchmark(
    name="accounts",
    title=__doc__ or "",
    baseline=_LOOP,
    legs=(
        Leg(_LOOP, _at_the_limit(_subscribe), ("starlette",)),
        Leg(_OURS, _at_the_limit(_batch), ("starlette",)),
        # An image takes seconds, and so many downloads a second would measure the emulator.
        Leg(_SAVED, _at_the_limit(partial(_batch, save=True), longer=3.0), ("starlette",)),
        Leg(_LOCKED, _locked, ("starlette",)),
        Leg(_MIXED, _long_and_short, ("starlette",)),
        Leg(_DIRECT, _direct, ("starlette",)),
        Leg(_JOURNAL, _journal),
    ),
    cases=(Case(_CASE, {"jobs": 20_000, "long": 256, "short": 1000}, patience=400),),
    quick=(Case("100 jobs", {"jobs": 100, "long": 3, "short": 10}),),
    columns=(
        Column("wall_s", "wall s"),
        Column("of_least", "of the least"),
        Column("cpu_us", "CPU us"),
        Column("peak_mb", "peak MB"),
        Column("lines", "changes a commit"),
        Column("missing", "missing"),
        Column("twice", "twice"),
        Column("refused", "refused"),
        Column("late_s", "late s"),
        Column("other_late_s", "other key s"),
        Column("bytes", "bytes"),
    ),
    bars=(
        Bar("changes of the journal for a commit", "lines", _CASE, _OURS, at_least=20),
        _bar("wall clock, of the least", "of_least", _OURS, 1.05),
        _bar("wall clock, of that of subscribe", "wall_s", _OURS, 1.05, _LOOP),
        _bar("CPU of a job, of that of subscribe", "cpu_us", _OURS, 1.3, _LOOP),
        _bar("peak memory of a batch, in MB", "peak_mb", _OURS, 120),
        _bar("wall clock with images saved, of the least", "of_least", _SAVED, 1.05),
        _bar("peak memory with images saved, in MB", "peak_mb", _SAVED, 120),
        _bar("requests that a locked account refuses", "refused", _LOCKED, 1),
        _bar("jobs that are paid twice around the lock", "twice", _LOCKED, 0),
        _bar("jobs that are missing after the lock", "missing", _LOCKED, 0),
        _bar("latest result of a short job, in seconds", "late_s", _MIXED, 5),
        _bar("that of another key, in seconds", "other_late_s", _MIXED, 5),
        _bar("direct runs that fail", "missing", _DIRECT, 0),
        _bar("share of direct runs that are refused", "refused_share", _DIRECT, 0.03),
        _bar("seconds to open a journal of a million jobs", "wall_s", _JOURNAL, 3),
        _bar("memory to open it, in MB", "peak_mb", _JOURNAL, 300),
        _bar("size of the journal for a job, in bytes", "bytes", _JOURNAL, 250),
    ),
)
