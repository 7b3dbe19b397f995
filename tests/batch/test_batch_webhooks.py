"""Batches whose outcomes come as callbacks."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import AsyncClient, InvalidRequestError, Journal, UnknownJobError
from fal_async.batch import callbacks, unsure
from fal_async.batch.callbacks import callback_url, find_pending
from fal_async.batch.entries import Begin, Update
from fal_async.emulator import AppError, Fault
from fal_async.webhooks import BatchReceiver, Webhooks
from tests.support.servers import serve_with_uvicorn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fal_async.batch import Job
    from fal_async.emulator import Emulator

APP = "acme/app"


@pytest.fixture(autouse=True)
def registered(fal: Emulator) -> None:
    @fal.endpoint(APP)
    async def app(arguments: dict[str, Any]) -> Any:
        if arguments.get("fails"):
            raise AppError(422, "no")
        # No callback has an output that is no JSON; the platform says the same of large ones.
        return {"n": inf} if arguments.get("large") else arguments


@pytest.fixture
def url(fal: Emulator, journal_path: str) -> Iterator[str]:
    """The URL of a receiver of the journal, in a thread of its own."""
    webhooks = Webhooks(AsyncClient(fal.key, hosts=fal.hosts))
    with serve_with_uvicorn(BatchReceiver(journal_path, webhooks=webhooks), "on") as url:
        yield f"{url}/hook?a=b"


async def outcomes(client: AsyncClient, inputs: Any, **options: Any) -> list[Job]:
    async with client.batch(APP, inputs, wait="webhook", **options) as batch:
        return sorted([job async for job in batch], key=lambda job: job.index)


async def test_outcomes_come_as_callbacks(
    fal: Emulator, client: AsyncClient, journal_path: str, url: str
) -> None:
    fal.fail(None, Fault(route="webhook", duplicate=True, times=None))
    inputs: list[dict[str, Any]] = [{"n": n} for n in range(8)]
    inputs += [{"fails": True}, {"large": True}]
    for is_resumed in (False, True):
        jobs = await outcomes(client, inputs, journal=journal_path, webhook_url=url)
        assert [job.output for job in jobs[:8]] == inputs[:8]
        assert [job.ok for job in jobs] == [True] * 8 + [False, True]
        assert all(job.resumed is is_resumed and job.request_id for job in jobs)
        assert jobs[9].output == {"n": inf}
        assert jobs[8].error is not None
        assert (jobs[8].error.type, jobs[8].error.final) == ("InvalidInputError", True)
    assert fal.counters(APP).executions == 10
    # Of the output that is in no callback.
    assert (fal.count("status"), fal.count("status_stream"), fal.count("result")) == (0, 1, 1)


async def test_callback_settles_an_unsure_input(
    fal: Emulator,
    client: AsyncClient,
    journal_path: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unsure, "LOOK_INTERVAL", 0.05)
    fal._platform.settings.listing_delay = 3600.0
    fal.fail(APP, Fault(route="submit", drop_response=True, times=3))
    inputs = [{"n": n} for n in range(5)]
    jobs = await outcomes(client, inputs, journal=journal_path, webhook_url=url)
    assert [job.output for job in jobs] == inputs
    assert not any(job.resumed for job in jobs)
    assert fal.counters(APP).executions == 5
    assert fal.count("result") == 0


async def test_missing_callback_is_asked_for(
    fal: Emulator,
    client: AsyncClient,
    journal_path: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callbacks, "MIN_PATIENCE", 0.1)
    fal.fail(None, Fault(route="webhook", drop=True, times=None))
    inputs = [{"n": n} for n in range(3)]
    jobs = await outcomes(client, inputs, journal=journal_path, webhook_url=url)
    assert [job.output for job in jobs] == inputs
    assert fal.count("result") == 3


async def test_callback_of_another_job_is_ignored(journal_path: str) -> None:
    def query(key: str, attempt: int) -> str:
        return callback_url("https://me.example/fal", key, attempt).partition("?")[2]

    with Journal(journal_path) as journal:
        for key in ("a", "b#2"):
            await journal._commit(Begin(key, APP, 0, b"", 1.0))
        await journal._commit(Update("a", 1, {"state": "running", "request_id": "job-a"}))
        known = await find_pending(journal, query("a", 1), "job-a")
        unsure = await find_pending(journal, query("b#2", 1), "job-b")
        assert known is not None
        assert unsure is not None
        assert (known.key, unsure.key) == ("a", "b#2")
        assert await find_pending(journal, query("a", 1), "job-b") is None
        assert await find_pending(journal, query("b#2", 1), "job-a") is None
        assert await find_pending(journal, query("a", 0), "job-a") is None
        for unknown in (query("c", 1), query("a", 2), "", "k=a&n=x"):
            with pytest.raises(UnknownJobError):
                await find_pending(journal, unknown, "job-a")
        await journal._commit(Update("a", 1, {"state": "ended"}))
        assert await find_pending(journal, query("a", 1), "job-a") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wait": "webhook"}, "webhook_url must be given"),
        ({"webhook_url": "https://me.example"}, "webhook_url must be None"),
        ({"wait": "webhook", "webhook_url": "me.example"}, "webhook_url must be an absolute"),
        ({"wait": "webhook", "webhook_url": "https://me.example"}, "journal must be given"),
    ],
)
def test_wrong_webhook_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        AsyncClient("key").batch(APP, [], **options)
