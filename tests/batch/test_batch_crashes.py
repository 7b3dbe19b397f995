"""Batches that are killed: nothing is started twice, and everything has an outcome in the end."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from fal_async import Journal
from fal_async.batch import lookup, unsure
from fal_async.batch.entries import Update
from fal_async.emulator import Emulator, Fault
from tests.support.subprocesses import started

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from subprocess import Popen

    from fal_async import AsyncClient

APP = "acme/app"
PROGRAM = """
import sys
import anyio
from fal_async import AsyncClient
from fal_async.batch import lookup

lookup.LISTING_DELAY = 0.2
path, journal, output = sys.argv[1:]

async def main():
    async with AsyncClient() as client:
        options = {"journal": journal, "in_flight": 50, "output": output or None}
        async with client.batch("acme/app", path, **options) as batch:
            summary = await batch.run()
    print(summary.ok, summary.unsure, summary.lost)

anyio.run(main)
"""


def serve(fal: Emulator) -> Counter[int]:
    """Register an app that counts its executions by input."""
    executions: Counter[int] = Counter()

    @fal.endpoint(APP)
    async def app(arguments: dict[str, Any]) -> dict[str, Any]:
        executions[arguments["n"]] += 1
        await anyio.sleep(0.02)
        return arguments

    return executions


def has_executed(executions: Counter[int], count: int) -> bool:
    return executions.total() >= count


def start(
    fal: Emulator, path: Path, journal: str, output: str
) -> AbstractContextManager[Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, str(path), journal, output]
    return started(command, env={**os.environ, **fal.environ})


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_killed_batch_starts_nothing_twice(
    fal: Emulator, journal_path: str, tmp_path: Path
) -> None:
    count, kills = 300, 4
    executions = serve(fal)
    path, output = tmp_path / "in.jsonl", ""
    path.write_text("".join(json.dumps({"n": n}) + "\n" for n in range(count)))
    if journal_path.startswith(str(tmp_path)):
        output = str(tmp_path / "out.jsonl")
    for kill in range(kills):
        with start(fal, path, journal_path, output) as process:
            reached = count * (kill + 1) // (kills + 2) + random.randrange(20)
            await fal.wait_for_async(partial(has_executed, executions, reached), timeout=60)
            process.kill()
    with start(fal, path, journal_path, output) as process:
        stdout, _ = await anyio.to_thread.run_sync(partial(process.communicate, timeout=60))

    assert stdout.split() == [str(count), "0", "0"]
    assert executions == Counter(range(count))
    if output:
        text = await anyio.Path(output).read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        assert sorted(row["index"] for row in rows) == list(range(count))
        assert all(row["output"] == {"n": row["index"]} for row in rows)


async def test_lost_submit_response_is_looked_up(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    executions = serve(fal)
    fal.fail(APP, Fault(route="submit", drop_response=True, times=5))
    inputs = [{"n": n} for n in range(20)]
    async with client.batch(APP, inputs, journal=tmp_path / "journal.db") as batch:
        jobs = [job async for job in batch]
    assert [job.ok for job in jobs] == [True] * 20
    assert executions == Counter(range(20))


async def test_unsent_submit_is_started_after_look(
    fal: Emulator, client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "LISTING_DELAY", 0.01)
    executions = serve(fal)
    fal.fail(APP, Fault(route="submit", drop=True, times=3))
    inputs = [{"n": n} for n in range(10)]
    async with client.batch(APP, inputs, journal=tmp_path / "journal.db") as batch:
        jobs = [job async for job in batch]
    assert [job.ok for job in jobs] == [True] * 10
    assert executions == Counter(range(10))
    assert batch.summary.again == 0


async def test_unsure_input_without_payload_is_reported(
    fal: Emulator, client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "LISTING_DELAY", 0.01)
    monkeypatch.setattr(unsure, "LOOK_INTERVAL", 0.01)
    executions = serve(fal)
    fal.fail(APP, Fault(route="submit", drop_response=True))
    options: dict[str, Any] = {"journal": tmp_path / "journal.db", "store_io": False}
    async with client.batch(APP, [{"n": n} for n in range(5)], **options) as batch:
        jobs = [job async for job in batch]
    assert Counter(job.ok for job in jobs) == {True: 4, None: 1}
    assert executions == Counter(range(5))


async def test_search_does_not_count_as_time_of_the_job(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    executions = serve(fal)
    fal.fail(APP, Fault(route="submit", drop_response=True))
    journal = Journal(tmp_path / "journal.db")
    async with client.batch(APP, [{"n": 1}], journal=journal, unsure="report") as batch:
        await batch.run()
    store = journal._opened()
    (entry,) = store.entries("unsure")
    store.commit([Update(entry.key, 1, {"tried_at": entry.tried_at - 50.0})])
    async with client.batch(APP, [{"n": 1}], journal=journal) as batch:
        assert (await batch.run()).ok == 1
    assert store.longest_job() < 50.0
    assert executions == Counter({1: 1})
    journal.close()


async def test_searches_for_unsure_inputs_are_spaced(
    fal: Emulator, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsure, "LOOK_INTERVAL", 60.0)
    fal.fail(APP, Fault(route="submit", drop=True, share=1.0))
    is_read = anyio.Event()

    async def inputs() -> AsyncGenerator[dict[str, int]]:
        for n in range(20):
            yield {"n": n}
        is_read.set()

    async with client.batch(APP, inputs(), in_flight=1, grace=0.0):
        await is_read.wait()
    assert fal.count("requests") == 1


async def test_equal_unsure_inputs_are_told_apart(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    executions = serve(fal)
    fal.fail(APP, Fault(route="submit", drop_response=True, times=3))
    async with client.batch(APP, [{"n": 1}] * 6, journal=tmp_path / "journal.db") as batch:
        jobs = [job async for job in batch]
    assert len({job.request_id for job in jobs}) == 6
    assert executions == Counter({1: 6})
