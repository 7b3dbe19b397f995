"""Retries of failing runners by the platform."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fal_async.emulator import AppError, Emulator, Fault, Job
from tests.support.http import Arguments, echo, make_client, submit, wait_for_completed

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx


def failing(times: int, error: AppError) -> Callable[[Arguments, Job], int]:
    def app(arguments: Arguments, job: Job) -> int:
        if job.executions <= times:
            raise error
        return job.executions

    return app


@pytest.mark.parametrize("status", [503, 504])
def test_failing_runner_is_retried(fal: Emulator, http: httpx.Client, status: int) -> None:
    fal.register("acme/app", failing(2, AppError(status, "GPU error")))
    submitted = submit(http)
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).json() == 3


@pytest.mark.parametrize("status", [200, 400, 422, 429, 500, 502])
def test_other_statuses_are_final(fal: Emulator, http: httpx.Client, status: int) -> None:
    fal.register("acme/app", failing(2, AppError(status)))
    submitted = submit(http)
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).status_code == status
    assert fal.counters("acme/app").executions == 1


def test_runner_is_attempted_ten_times(http: httpx.Client) -> None:
    with Emulator(backoff=0.0) as fal, make_client(fal) as http:
        fal.register("acme/app", failing(100, AppError(503, "GPU error")))
        submitted = submit(http)
        wait_for_completed(fal)
        result = http.get(submitted["response_url"])
        assert (result.status_code, result.json()) == (503, {"detail": "GPU error"})
        assert "x-fal-needs-retry" not in result.headers
        assert fal.counters("acme/app").executions == 10


def test_retries_can_be_disabled(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", failing(2, AppError(503)))
    submitted = submit(http, headers={"X-Fal-No-Retry": "yes"})
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).status_code == 503
    assert fal.counters("acme/app").executions == 1


@pytest.mark.parametrize(
    ("config", "executions"),
    [
        ('{"server_error": {"retries": 1}}', 2),
        ('{"timeout": {"retries": 0}}', 3),
        ("not json", 3),
        ('{"server_error": 5}', 3),
    ],
)
def test_retries_are_configurable_by_condition(
    fal: Emulator, http: httpx.Client, config: str, executions: int
) -> None:
    fal.register("acme/app", failing(2, AppError(503)))
    submit(http, headers={"X-Fal-Retry-Config": config})
    wait_for_completed(fal)
    assert fal.counters("acme/app").executions == executions


@pytest.mark.parametrize("word", ["1", "true"])
def test_app_may_request_a_retry(fal: Emulator, http: httpx.Client, word: str) -> None:
    fal.register("acme/app", failing(1, AppError(500, headers={"X-Fal-Needs-Retry": word})))
    submitted = submit(http)
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).json() == 2


@pytest.mark.parametrize("word", ["0", "false"])
def test_app_may_forbid_a_retry(fal: Emulator, http: httpx.Client, word: str) -> None:
    fal.register("acme/app", failing(1, AppError(503, headers={"X-Fal-Needs-Retry": word})))
    submitted = submit(http)
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).status_code == 503


def test_truncated_response_is_retried(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="runner", drop=True))
    submitted = submit(http, json={"a": 1})
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).json() == {"a": 1}
    assert fal.counters("acme/app").executions == 2


def test_truncation_counts_as_server_error(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.fail("acme/app", Fault(route="runner", drop=True))
    config = '{"server_error": {"retries": 0}, "connection_error": {"retries": 5}}'
    submitted = submit(http, headers={"X-Fal-Retry-Config": config})
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).json()["error_type"] == "runner_disconnected"


def test_runner_timeout_is_retried(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app", timeout=0.01)
    async def app(arguments: Arguments, job: Job) -> int:
        if job.executions == 1:
            await asyncio.Event().wait()
        return job.executions

    submitted = submit(http)
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).json() == 2


def test_job_is_queued_between_attempts() -> None:
    with Emulator(backoff=60) as fal, make_client(fal) as http:
        fal.register("acme/app", failing(1, AppError(503)))
        submitted = submit(http)
        counters = fal.counters("acme/app")
        fal.wait_for(lambda: counters.executions == 1 and counters.running == 0)
        status = http.get(submitted["status_url"])
        assert (status.status_code, status.json()["status"]) == (202, "IN_QUEUE")
        assert status.json()["queue_position"] == 0
        assert counters.queued == 1
        assert http.put(submitted["cancel_url"]).json() == {"status": "OK"}
        assert counters.queued == 0


def test_start_deadline_covers_failed_attempts() -> None:
    with Emulator(backoff=60) as fal, make_client(fal) as http:
        fal.register("acme/app", failing(1, AppError(503)))
        submitted = submit(http, headers={"X-Fal-Request-Start-Timeout": "0.11"})
        wait_for_completed(fal)
        result = http.get(submitted["response_url"])
        assert result.status_code == 504
        assert result.headers["x-fal-request-timeout-type"] == "user"


def test_no_retry_after_the_start_deadline(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/app")
    async def app(arguments: Arguments) -> None:
        await gate.wait()
        raise AppError(503, "GPU error")

    submitted = submit(http, headers={"X-Fal-Request-Start-Timeout": "0.11"})
    fal.register("acme/blocked", echo, concurrency=0)
    submit(http, "acme/blocked", headers={"X-Fal-Request-Start-Timeout": "0.12"})
    wait_for_completed(fal, 1, "acme/blocked")  # and so the other deadline has passed, too
    gate.open()
    wait_for_completed(fal)
    result = http.get(submitted["response_url"])
    assert (result.status_code, result.headers["x-fal-request-timeout-type"]) == (504, "user")
    assert fal.counters("acme/app").executions == 1


def test_retried_job_is_queued_first(fal: Emulator, http: httpx.Client) -> None:
    submitted, gate = fal.gate(), fal.gate()
    runs: list[str] = []

    @fal.endpoint("acme/app", concurrency=1)
    async def app(arguments: Arguments, job: Job) -> None:
        name = arguments["name"]
        runs.append(name)
        if name == "first" and job.executions == 1:
            await submitted.wait()
            raise AppError(503, "GPU error")
        if name == "second":
            await gate.wait()

    jobs = [submit(http, json={"name": name}) for name in ("first", "second", "third")]
    submitted.open()
    fal.wait_for(lambda: runs == ["first", "second"])
    fal.wait_for(lambda: http.get(jobs[2]["status_url"]).json()["queue_position"] == 1)
    gate.open()
    wait_for_completed(fal, 3)
    assert runs == ["first", "second", "first", "third"]


def test_direct_runs_are_not_retried(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", failing(1, AppError(503)))
    assert http.post("/run/acme/app", json={}).status_code == 503
    assert fal.counters("acme/app").executions == 1
