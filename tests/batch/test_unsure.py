"""Unsure inputs: when the platform is asked, and what becomes of them."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from fal_async import Journal
from fal_async.batch import claims, lookup, unsure
from fal_async.batch.claims import claim, refresh_claim, set_attempt
from fal_async.batch.entries import Update
from fal_async.batch.inputs import Item
from fal_async.batch.lookup import JobSearch
from fal_async.batch.unsure import UnsureInputs
from fal_async.emulator import Fault
from tests.support.http import gated_echo

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from fal_async import AsyncClient
    from fal_async.emulator import Emulator, RecordedRequest

APP = "acme/app"


def serve(fal: Emulator) -> Counter[int]:
    """Register an app that counts its executions by input."""
    executions: Counter[int] = Counter()

    @fal.endpoint(APP)
    def app(arguments: dict[str, Any]) -> dict[str, Any]:
        executions[arguments["n"]] += 1
        return arguments

    return executions


def ignore(_: Item) -> None:
    pass


async def test_search_does_not_delay_other_inputs(fal: Emulator, client: AsyncClient) -> None:
    executions, gate = serve(fal), fal.gate()
    fal.fail(APP, Fault(route="submit", drop_response=True, when=lambda r: r.body == b'{"n":0}'))
    fal.fail(None, Fault(route="requests", delay=gate))
    async with client.batch(APP, [{"n": n} for n in range(20)]) as batch:
        jobs = [await anext(batch) for _ in range(19)]
        gate.open()
        jobs += [job async for job in batch]
    assert jobs[-1].index == 0
    assert all(job.ok for job in jobs)
    assert executions == Counter(range(20))


@pytest.mark.parametrize(
    ("is_idle", "age", "seconds", "delay"),
    [
        (False, 10.0, 1.0, 30.0),  # until the decision is certain
        (False, 10.0, 20.0, 80.0),  # at most a fifth of the time is spent on searches
        (True, 1.0, 1.0, 2.0),
        (True, 20.0, 1.0, 5.0),
        (True, 30.0, 1.0, 2.5),
        (True, 20.0, 9.0, 9.0),
    ],
)
async def test_search_is_due(
    client: AsyncClient, is_idle: bool, age: float, seconds: float, delay: float
) -> None:
    with Journal(":memory:") as journal:
        dispatcher = client._dispatcher
        inputs = UnsureInputs(dispatcher, journal, lambda: is_idle, time.time, ignore, ignore)
        item = Item(0, {}, {}, APP, b"", "a")
        inputs.add(item)
        assert inputs._delay() == 0.0  # nothing was searched yet
        search = inputs._by_application[APP] = JobSearch(dispatcher, journal, APP)
        search._longest_listed = 40.0 - lookup.LISTING_DELAY
        item.submitted_by = time.time() - age
        inputs._ended_at, inputs._seconds = anyio.current_time(), seconds
        assert inputs._delay() == pytest.approx(delay, abs=1.0)


async def test_unsure_inputs_are_searched_when_nothing_else_is_left(
    fal: Emulator, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsure, "LOOK_INTERVAL", 0.01)
    executions, gate = serve(fal), fal.gate()
    fal.register("acme/slow", gated_echo(gate))
    fal.fail(APP, Fault(route="submit", drop=True, share=1.0))
    is_searched = anyio.Event()

    async def inputs() -> AsyncGenerator[dict[str, Any]]:
        yield {"endpoint": "acme/slow"}
        yield {"endpoint": APP}
        await is_searched.wait()

    async with client.batch(lambda row: str(row["endpoint"]), inputs(), grace=0.0):
        await fal.wait_for_async(lambda: fal.count("requests") == 1)
        gate.open()
        await fal.wait_for_async(lambda: fal.count("requests") >= 3)
        is_searched.set()
    assert executions == Counter()


async def test_calls_at_once_share_a_search(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    executions, gate = serve(fal), fal.gate()
    fal.fail(APP, Fault(route="submit", drop_response=True, times=10))
    fal.fail(None, Fault(route="requests", delay=gate))
    outputs: list[dict[str, Any]] = []

    async def call(n: int) -> None:
        outputs.append(await client.once(APP, {"n": n}, journal=tmp_path / "journal.db"))

    async with anyio.create_task_group() as group:
        for n in range(10):
            group.start_soon(call, n)
        await fal.wait_for_async(lambda: fal.count("requests") == 1)
        (search,) = lookup._shared.get().values()
        while search._lock.statistics().tasks_waiting < 9:
            await checkpoint()
        gate.open()
    assert sorted(output["n"] for output in outputs) == list(range(10))
    assert executions == Counter(range(10))
    assert fal.count("requests") == 2


async def test_search_goes_on_when_its_first_call_is_cancelled(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    executions, gate = serve(fal), fal.gate()
    fal.fail(APP, Fault(route="submit", drop_response=True, times=3))
    fal.fail(None, Fault(route="requests", delay=gate, times=2))
    outputs: list[dict[str, Any]] = []

    async def call(n: int, scope: anyio.CancelScope) -> None:
        with scope:
            outputs.append(await client.once(APP, {"n": n}, journal=tmp_path / "journal.db"))

    scopes = [anyio.CancelScope() for _ in range(3)]
    async with anyio.create_task_group() as group:
        group.start_soon(call, 0, scopes[0])
        await fal.wait_for_async(lambda: fal.count("requests") == 1)
        (search,) = lookup._shared.get().values()
        for n in (1, 2):
            group.start_soon(call, n, scopes[n])
            while search._lock.statistics().tasks_waiting < n:
                await checkpoint()
        scopes[0].cancel()
        await fal.wait_for_async(lambda: fal.count("requests") == 2)
        scopes[1].cancel()
        gate.open()
    assert outputs == [{"n": 2}]
    await fal.wait_for_async(lambda: executions == Counter(range(3)))


async def test_listing_that_fails_is_read_again(fal: Emulator, client: AsyncClient) -> None:
    executions = serve(fal)
    fal.fail(APP, Fault(route="submit", drop_response=True))
    fal.fail(None, Fault(route="requests", status=503, headers={"retry-after": "0"}, times=12))
    async with client.batch(APP, [{"n": 1}]) as batch:
        assert (await batch.run()).ok == 1
    assert executions == Counter([1])


async def test_refused_listing_leaves_inputs_unsure(fal: Emulator, client: AsyncClient) -> None:
    executions = serve(fal)
    fal.fail(APP, Fault(route="submit", drop_response=True))
    fal.fail(None, Fault(route="requests", status=403, times=None))
    async with client.batch(APP, [{"n": n} for n in range(5)]) as batch:
        summary = await batch.run()
    assert (summary.ok, summary.unsure) == (4, 1)
    await fal.wait_for_async(lambda: executions == Counter(range(5)))


async def test_job_that_is_listed_late_is_not_started_again(
    fal: Emulator, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsure, "LOOK_INTERVAL", 0.05)
    fal._platform.settings.listing_delay = 0.3
    executions = serve(fal)
    fal.fail(APP, Fault(route="submit", drop_response=True, times=3))
    async with client.batch(APP, [{"n": n} for n in range(5)]) as batch:
        assert (await batch.run()).ok == 5
    assert executions == Counter(range(5))


async def test_input_that_is_adopted_meanwhile_is_not_started_again(
    fal: Emulator, client: AsyncClient, journal_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "LISTING_DELAY", -3600.0)
    executions, gate = serve(fal), fal.gate()
    fal.fail(APP, Fault(route="submit", drop_response=True))
    fal.fail(None, Fault(route="requests", delay_response=gate, body={"items": []}, status=200))
    journal = Journal(journal_path, shared=True)
    async with client.batch(APP, [{"n": 1}], journal=journal) as batch:
        await fal.wait_for_async(lambda: fal.count("requests") == 1)
        await journal._flush()
        (entry,) = await journal._read(lambda store: list(store.entries("unsure")))
        (request_id,) = fal.jobs
        await anyio.to_thread.run_sync(journal.adopt, entry.key, request_id)
        gate.open()
        (job,) = [job async for job in batch]
    assert (job.ok, job.request_id) == (True, request_id)
    assert executions == Counter([1])
    await anyio.to_thread.run_sync(journal.close)


async def test_stopped_batch_searches_no_more(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    executions, gate = serve(fal), fal.gate()
    fal.fail(APP, Fault(route="submit", drop_response=True))
    fal.fail(None, Fault(route="requests", delay=gate))
    async with client.batch(APP, [{"n": 1}], journal=tmp_path / "journal.db") as batch:
        await fal.wait_for_async(lambda: fal.count("requests") == 1)
    assert batch.summary.done == 0
    gate.open()
    async with client.batch(APP, [{"n": 1}], journal=tmp_path / "journal.db") as batch:
        assert (await batch.run()).ok == 1
    assert executions == Counter([1])


@pytest.mark.parametrize(("via", "route"), [("queue", "submit"), ("run", "run")])
async def test_claim_is_refreshed_before_a_late_request(
    fal: Emulator,
    client: AsyncClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    via: Literal["queue", "run"],
    route: Literal["submit", "run"],
) -> None:
    monkeypatch.setattr(claims, "CLAIM_LIFE", 0.0)
    serve(fal)
    arrivals: list[float] = []

    def note(_: RecordedRequest) -> bool:
        arrivals.append(time.time())
        return True

    fal.fail(APP, Fault(route=route, status=429, headers={"retry-after": "0"}, when=note))
    fal.fail(APP, Fault(route=route, drop_response=True))
    journal = Journal(tmp_path / "journal.db")
    async with client.batch(APP, [{"n": 1}], journal=journal, via=via, unsure="report") as batch:
        (job,) = [job async for job in batch]
    (entry,) = journal.entries("unsure")
    assert job.ok is None
    assert entry.ended_at is not None
    assert arrivals[0] < entry.tried_at < entry.ended_at
    journal.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_times_of_a_submit_are_those_of_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    item = Item(0, {}, {}, APP, b"\x01", "a")
    assert await claim(journal, item)
    claimed_at = item.started_at
    assert await refresh_claim(journal, item)
    assert item.started_at == claimed_at
    item.started_at -= claims.CLAIM_LIFE
    assert await refresh_claim(journal, item)
    entry = journal["a"]
    assert entry.tried_at == item.started_at >= claimed_at

    set_attempt(item, entry)
    assert item.started_at <= item.submitted_by < item.started_at + claims.MAX_SUBMIT_TIME
    store = journal._opened()
    store.commit([Update("a", 1, {"tried_at": 1000.0})])
    set_attempt(item, journal["a"])
    assert (item.started_at, item.submitted_by) == (1000.0, 1000.0 + claims.MAX_SUBMIT_TIME)
    store.commit([Update("a", 1, {"state": "unsure", "ended_at": 1001.0})])
    set_attempt(item, journal["a"])
    assert (item.started_at, item.submitted_by) == (1000.0, 1001.0)

    item.started_at -= claims.CLAIM_LIFE
    assert not await refresh_claim(journal, item)  # it is no claim any more
    await journal._aclose()
