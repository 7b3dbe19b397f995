"""Batches: each input is started once, and its outcome is delivered."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from fal_async import AccountLockedError, InvalidRequestError, Journal, encode
from fal_async.batch import BatchStoppedError, ChangedInputError, inputs
from fal_async.batch.jobs import StoredJob
from fal_async.emulator import AppError, Fault
from tests.support.http import gated_echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fal_async import AsyncClient
    from fal_async.batch.jobs import Job
    from fal_async.emulator import Emulator

ECHO = "acme/echo"


def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


def rows(count: int) -> list[dict[str, Any]]:
    return [{"n": n} for n in range(count)]


@pytest.fixture(autouse=True)
def registered(fal: Emulator) -> None:
    fal.register(ECHO, echo)


async def outcomes(client: AsyncClient, inputs: Any, **options: Any) -> list[Job]:
    """Run a batch to its end and return the outcomes by index."""
    async with client.batch(options.pop("application", ECHO), inputs, **options) as batch:
        jobs = [job async for job in batch]
    return sorted(jobs, key=lambda job: job.index)


async def test_each_input_has_one_outcome(fal: Emulator, client: AsyncClient) -> None:
    jobs = await outcomes(client, rows(50))
    assert [job.index for job in jobs] == list(range(50))
    assert [job.output["n"] for job in jobs] == list(range(50))
    assert all(job.ok and job.request_id and job.attempts == 1 for job in jobs)
    assert fal.counters(ECHO).executions == 50


async def test_known_outcomes_are_repeated(
    fal: Emulator, client: AsyncClient, journal_path: str
) -> None:
    first = await outcomes(client, rows(20), journal=journal_path)
    second = await outcomes(client, rows(25), journal=journal_path)
    assert [job.output for job in second] == rows(25)
    assert [job.resumed for job in second] == [True] * 20 + [False] * 5
    assert [job.request_id for job in second[:20]] == [job.request_id for job in first]
    assert fal.counters(ECHO).executions == 25


async def test_outputs_that_are_bytes_are_kept(
    fal: Emulator, client: AsyncClient, journal_path: str
) -> None:
    sound = b"RIFF\xff\x00data"

    async def speak(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"audio/wav")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": sound})

    fal.register("acme/speak", speak)
    options = {"application": "acme/speak", "journal": journal_path}
    first = await outcomes(client, rows(1), **options)
    second = await outcomes(client, rows(1), **options)
    assert [job.output for job in (*first, *second)] == [sound, sound]
    assert first[0].to_dict()["output"] == encode(sound, "application/octet-stream")


async def test_moved_inputs_are_not_started_again(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.db"
    await outcomes(client, rows(10), journal=journal)
    jobs = await outcomes(client, [{"n": 99}, *reversed(rows(10))], journal=journal)
    assert [job.output["n"] for job in jobs] == [99, *range(9, -1, -1)]
    assert fal.counters(ECHO).executions == 11


async def test_inputs_are_read_lazily(fal: Emulator, client: AsyncClient) -> None:
    read = 0

    def generate() -> Iterator[dict[str, Any]]:
        nonlocal read
        for n in range(10_000):
            read += 1
            yield {"n": n}

    async with client.batch(ECHO, generate(), ready=5, in_flight=4, grace=0) as batch:
        async for job in batch:
            assert job.ok
            break
    assert read < 100


async def test_inputs_may_be_async(client: AsyncClient) -> None:
    async def generate() -> AsyncIterator[dict[str, Any]]:
        for row in rows(5):
            await anyio.lowlevel.checkpoint()
            yield row

    assert [job.output for job in await outcomes(client, generate())] == rows(5)


async def test_ordered_outcomes_keep_the_order(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/first-waits")
    async def first_waits(arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments["n"] == 0:
            await gate.wait()
        return arguments

    async with client.batch("acme/first-waits", rows(40), ordered=True, ready=10) as batch:
        await fal.wait_for_counters("acme/first-waits", executions=10)
        gate.open()
        seen = [job.index async for job in batch]
    assert seen == list(range(40))


async def test_large_outputs_wait_in_the_journal(
    client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "LARGE_OUTPUT", 5)
    jobs: list[Job] = []
    for journal in (None, tmp_path / "journal.db", tmp_path / "journal.db"):
        jobs = await outcomes(client, rows(9), journal=journal)
        assert [job.output for job in jobs] == rows(9)
        assert all(job.result is not None and job.result.request_id for job in jobs)
    held = jobs[0]
    stored = StoredJob(**{field.name: getattr(held, field.name) for field in fields(held)})
    waiting = stored.without_output()
    assert (waiting.output, waiting.result) == (None, {})
    assert waiting.with_output({"n": 0}) == held


async def test_rejected_input_is_an_outcome(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint("acme/picky")
    def picky(arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments["n"] == 1:
            raise AppError(422, [{"loc": ["body", "n"], "msg": "not one", "type": "value_error"}])
        return arguments

    jobs = await outcomes(client, rows(3), application="acme/picky")
    assert [job.ok for job in jobs] == [True, False, True]
    error = jobs[1].error
    assert error is not None
    assert (error.type, error.status, error.final, error.started) == (
        "InvalidInputError",
        422,
        True,
        True,
    )
    assert error.problems[0]["message"] == "not one"
    assert fal.counters("acme/picky").executions == 3


async def test_passing_failure_gets_another_job(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    failures = {0: 2, 1: 5}

    @fal.endpoint("acme/flaky")
    def flaky(arguments: dict[str, Any]) -> dict[str, Any]:
        if failures.get(arguments["n"], 0) > 0:
            failures[arguments["n"]] -= 1
            raise AppError(500, "out of memory")
        return arguments

    journal = tmp_path / "journal.db"
    jobs = await outcomes(client, rows(3), application="acme/flaky", journal=journal)
    assert [(job.ok, job.attempts) for job in jobs] == [(True, 3), (False, 3), (True, 1)]
    assert jobs[1].error is not None
    assert jobs[1].error.final
    again = await outcomes(client, rows(3), application="acme/flaky", journal=journal)
    assert [(job.ok, job.resumed) for job in again] == [(True, True), (False, True), (True, True)]
    assert fal.counters("acme/flaky").executions == 7


async def test_equal_inputs_have_jobs_of_their_own(fal: Emulator, client: AsyncClient) -> None:
    jobs = await outcomes(client, [{"n": 1}] * 3)
    assert len({job.request_id for job in jobs}) == 3
    assert fal.counters(ECHO).executions == 3


async def test_equal_inputs_may_share_a_job(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    inputs = [{"n": 1}, {"n": 2}] * 40
    journal = tmp_path / "journal.db"
    async with client.batch(ECHO, inputs, journal=journal, duplicates="once") as batch:
        jobs = [job async for job in batch]
    assert sorted(job.index for job in jobs) == list(range(80))
    assert all(job.output == inputs[job.index] for job in jobs)
    assert fal.counters(ECHO).executions == 2
    assert batch.summary.repeated == 78


async def test_equal_inputs_may_be_an_error(fal: Emulator, client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError, match=r"inputs must differ .* got input 1 again"):
        await outcomes(client, [{"n": 1}, {"n": 1}], duplicates="error")
    assert fal.count("submit") == 0


async def test_changed_input_is_named(fal: Emulator, client: AsyncClient, tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    old, new = [{"id": "a", "n": 1}], [{"id": "a", "n": 2}]
    options: dict[str, Any] = {"journal": journal, "key": "id", "arguments": {"n": "n"}}
    await outcomes(client, old, **options)
    with pytest.raises(ChangedInputError, match="has recorded them: a") as caught:
        await outcomes(client, new, **options)
    assert caught.value.keys == ("a",)
    assert fal.counters(ECHO).executions == 1
    (kept,) = await outcomes(client, new, changed="keep", **options)
    assert kept.output == {"n": 1}
    (made,) = await outcomes(client, new, changed="new", **options)
    assert made.output == {"n": 2}
    (known,) = await outcomes(client, new, **options)
    assert (known.output, known.resumed) == ({"n": 2}, True)
    assert fal.counters(ECHO).executions == 2


async def test_exhausted_balance_stops_the_batch(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    is_funded = False

    @fal.endpoint("acme/last")
    def last(arguments: dict[str, Any]) -> dict[str, Any]:
        if not is_funded and fal.counters("acme/last").executions >= 40:
            fal.lock()
        return arguments

    journal = tmp_path / "journal.db"
    async with client.batch("acme/last", rows(100), journal=journal) as batch:
        with pytest.raises(AccountLockedError):
            await batch.run()
    summary = batch.summary
    assert summary.stopped == "error"
    assert 40 <= summary.started == summary.ok == summary.done < 60
    assert fal.count("submit") - summary.started <= 8
    is_funded = True
    fal.unlock()
    jobs = await outcomes(client, rows(100), application="acme/last", journal=journal)
    assert [job.ok for job in jobs] == [True] * 100
    assert fal.counters("acme/last").executions == 100


async def test_locked_account_refuses_one_request(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    fal.lock()
    journal = tmp_path / "journal.db"
    async with client.batch(ECHO, rows(100), journal=journal) as batch:
        with pytest.raises(AccountLockedError):
            await batch.run()
    assert fal.count("submit") == 1
    assert (batch.summary.started, batch.summary.done) == (0, 0)
    with Journal(journal) as stored:
        assert set(stored.summary().states) == {"planned"}


async def test_many_failures_stop_the_batch(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint("acme/broken")
    def broken(arguments: dict[str, Any]) -> dict[str, Any]:
        raise AppError(422, "no")

    async with client.batch("acme/broken", rows(500), stop_after=10, in_flight=5) as batch:
        with pytest.raises(BatchStoppedError, match="set stop_after=None to go on"):
            await batch.run()
    assert 10 <= batch.summary.failed <= 20
    assert batch.summary.stopped == "failures"


async def test_lost_submit_response_is_reported(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    fal.fail(ECHO, Fault(route="submit", drop_response=True, times=1))
    journal = tmp_path / "journal.db"
    jobs = await outcomes(client, rows(5), journal=journal, unsure="report")
    (unsure,) = (job for job in jobs if job.ok is None)
    assert unsure.error is not None
    assert unsure.error.type == "SubmitOutcomeUnknownError"
    again = await outcomes(client, rows(5), journal=journal, unsure="report")
    assert [job.ok for job in again] == [job.ok for job in jobs]
    assert fal.counters(ECHO).executions == 5


async def test_lost_submit_response_may_start_another(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(ECHO, Fault(route="submit", drop_response=True, times=1))
    async with client.batch(ECHO, rows(5), unsure="again") as batch:
        jobs = [job async for job in batch]
    assert all(job.ok for job in jobs)
    assert batch.summary.again == 1
    assert fal.counters(ECHO).executions == 6


async def test_leaving_early_leaves_running_jobs(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/slow")
    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments["n"]:
            await gate.wait()
        return arguments

    journal = tmp_path / "journal.db"
    options: dict[str, Any] = {"journal": journal, "in_flight": 5, "grace": 0.01}
    async with client.batch("acme/slow", rows(20), **options) as batch:
        async for job in batch:
            assert job.output == {"n": 0}
            await fal.wait_for_counters("acme/slow", executions=5)
            break
    assert batch.summary.stopped == "requested"
    assert fal.count("cancel") == 0
    gate.open()
    jobs = await outcomes(client, rows(20), application="acme/slow", journal=journal)
    assert [job.output for job in jobs] == rows(20)
    assert fal.counters("acme/slow").executions == 20


async def test_jobs_cancelled_by_the_stop_are_started_again(
    fal: Emulator, client: AsyncClient, journal_path: str
) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/slow")
    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments["n"]:
            await gate.wait()
        return arguments

    options: dict[str, Any] = {"journal": journal_path, "in_flight": 5, "on_stop": "cancel"}
    async with client.batch("acme/slow", rows(5), **options) as batch:
        async for job in batch:
            assert job.output == {"n": 0}
            await fal.wait_for_counters("acme/slow", executions=5)
            batch.stop()
    assert (batch.summary.ok, batch.summary.failed) == (1, 0)
    assert fal.counters("acme/slow").cancelled == 4
    gate.open()
    with Journal(journal_path) as journal:
        assert journal.summary().states == {"ended": 1, "planned": 4}
        jobs = await outcomes(client, rows(5), application="acme/slow", journal=journal)
    assert [job.output for job in jobs] == rows(5)
    assert [job.attempts for job in jobs] == [1, 2, 2, 2, 2]
    assert all(job.error is None for job in jobs)


@pytest.mark.parametrize("is_stored", [True, False])
async def test_expired_result_is_looked_up(
    fal: Emulator, client: AsyncClient, tmp_path: Path, is_stored: bool
) -> None:
    gate = fal.gate()
    fal.register("acme/slow", gated_echo(gate))

    options: dict[str, Any] = {"journal": tmp_path / "journal.db", "store_io": is_stored}
    async with client.batch("acme/slow", rows(3), grace=0.01, **options):
        await fal.wait_for_counters("acme/slow", executions=3)
    gate.open()
    await fal.wait_for_counters("acme/slow", completed=3)
    for request_id in fal.jobs:
        fal.expire(request_id)
    jobs = await outcomes(client, rows(3), application="acme/slow", **options)
    assert [job.ok for job in jobs] == [is_stored] * 3
    if is_stored:
        assert [job.output for job in jobs] == rows(3)
        assert all(job.result is not None and job.result.request_id for job in jobs)
    assert fal.counters("acme/slow").executions == 3


async def test_direct_runs_adapt_to_the_account(client: AsyncClient) -> None:
    from fal_async import AsyncClient as Client
    from fal_async.emulator import Emulator as Platform

    running = peak = 0
    with Platform(concurrency=5) as fal:

        @fal.endpoint("acme/direct")
        async def direct(arguments: dict[str, Any]) -> dict[str, Any]:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await anyio.sleep(0.01)
            running -= 1
            return arguments

        async with Client(fal.key, hosts=fal.hosts) as own:
            jobs = await outcomes(own, rows(60), application="acme/direct", via="run")
        assert all(job.ok for job in jobs)
        assert fal.counters("acme/direct").executions == 60
        assert peak <= 5


async def test_run_returns_the_totals(client: AsyncClient) -> None:
    async with client.batch(ECHO, rows(30), price=0.5, ready=3) as batch:
        summary = await batch.run()
    assert (summary.ok, summary.failed, summary.total, summary.done) == (30, 0, 30, 30)
    assert batch.progress.done == 30


async def test_budget_is_not_exceeded(client: AsyncClient, journal_path: str) -> None:
    for budget, cost in [(0.01, None), (0.06, "0.05"), (0.075, "0.075"), (0.2, "0.2")]:
        options: dict[str, Any] = {"price": 0.025, "budget": budget, "journal": journal_path}
        async with client.batch(ECHO, rows(30), **options) as batch:
            summary = await batch.run()
        assert summary.stopped == "budget"
        assert summary.cost == (None if cost is None else Decimal(cost))


async def test_budget_is_not_exceeded_while_files_are_saved(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/file")
    def make(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"file": {"url": fal.store(b"a", "image/png", "a.png")}}

    fal.fail(None, Fault(route="download", delay=gate))
    options: dict[str, Any] = {"price": 1, "budget": 1, "save": str(tmp_path / "{index}")}
    async with client.batch("acme/file", rows(9), in_flight=1, **options) as batch:
        with anyio.fail_after(10):
            while batch.summary.stopped is None:
                await anyio.lowlevel.checkpoint()
        gate.open()
        summary = await batch.run()
    assert (summary.started, summary.stopped) == (1, "budget")


async def test_unsure_jobs_count_against_the_budget(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(ECHO, Fault(route="submit", drop_response=True, times=1))
    async with client.batch(ECHO, rows(3), price=1, budget=1) as batch:
        summary = await batch.run()
    assert (summary.ok, summary.cost, summary.stopped) == (1, Decimal(1), "budget")
    assert fal.counters(ECHO).executions == 1


async def test_job_of_an_earlier_run_is_collected_without_budget(
    fal: Emulator, client: AsyncClient, journal_path: str
) -> None:
    gate = fal.gate()
    fal.register("acme/slow", gated_echo(gate))
    options: dict[str, Any] = {"journal": journal_path, "price": 1, "in_flight": 1}
    async with client.batch("acme/slow", rows(3), grace=0.01, **options):
        await fal.wait_for_counters("acme/slow", executions=1)
    gate.open()
    async with client.batch("acme/slow", rows(3), budget=0.5, **options) as batch:
        summary = await batch.run()
    assert (summary.ok, summary.started, summary.stopped) == (1, 0, "budget")


async def test_batch_needs_its_context(client: AsyncClient) -> None:
    batch = client.batch(ECHO, rows(1))
    with pytest.raises(InvalidRequestError, match="runs within its context"):
        await batch.run()
    async with batch:
        await batch.run()
    with pytest.raises(InvalidRequestError, match="has been started"):
        async with batch:
            pass


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"via": "direct"}, "via must be 'queue' or 'run'"),
        ({"in_flight": 0}, "in_flight must be a whole number"),
        ({"stop_after": 1.5}, "stop_after must be"),
        ({"tags": {"A": "b"}}, "the tag name"),
        ({"colour": 1}, "no option 'colour'"),
        ({"save": "a.png"}, "save must be a pattern"),
        ({"application": "nonsense"}, "not an endpoint id"),
        ({"via": "run", "priority": "low"}, "priority must be omitted"),
        ({"budget": -1}, "budget must be"),
    ],
)
def test_wrong_options_are_refused(option: dict[str, Any], message: str) -> None:
    from fal_async import AsyncClient as Client

    application = option.pop("application", ECHO)
    with pytest.raises(InvalidRequestError, match=message):
        Client("key").batch(application, [], **option)
