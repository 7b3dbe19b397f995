"""Limits of batches: jobs in flight, money and failures."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any

import anyio
import pytest

from fal_async.batch import Budget, Job
from fal_async.batch.display import describe_progress, report_progress
from fal_async.batch.jobs import Progress
from fal_async.batch.limits import AdaptiveLimit, FixedLimit, QueueLimit, SubmitLimit
from fal_async.batch.spending import FailureWindow, Rate, Spending


def job(cost: str | None = None) -> Job:
    paid = None if cost is None else Decimal(cost)
    return Job(index=0, key="a", row={}, arguments={}, ok=True, cost=paid)


def test_queue_limit_is_twice_the_running_jobs() -> None:
    limit = QueueLimit()
    assert limit.value == 16
    for running, expected in [(5, 16), (40, 80), (3, 80), (9999, 1000)]:
        limit.observe_running(running)
        assert limit.value == expected


def test_refusal_reduces_once_for_a_round_trip() -> None:
    limit = AdaptiveLimit(1000)
    assert limit.value == 4
    for _ in range(16):
        limit.in_flight = int(limit.value)
        limit.succeeded()
    assert limit.value == 20
    limit.refused(1.0, 2.0, None)
    limit.refused(1.5, 2.1, None)  # was sent before the reduction
    assert limit.value == 16
    limit.in_flight = 16
    limit.succeeded()
    assert limit.value == 16 + 1 / 16


def test_unused_limit_does_not_grow() -> None:
    limit = AdaptiveLimit(1000)
    limit.in_flight = 1
    limit.succeeded()
    assert limit.value == 4


def test_retry_after_pauses_all_runs() -> None:
    limit = AdaptiveLimit(2)
    limit.refused(0.0, 1.0, 5.0)
    assert not limit.is_free(5.9)
    assert limit.is_free(6.0)


def test_fixed_limit_stays() -> None:
    limit = FixedLimit(1)
    limit.observe_running(100)
    limit.succeeded()
    assert limit.is_free(0.0)
    limit.in_flight = 1
    assert not limit.is_free(0.0)


async def observe(limit: SubmitLimit, seconds: float, *, queued: int, times: int) -> None:
    """Submit jobs one after the other while all slots are in use and more inputs are waiting."""
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(limit.slots.acquire)
        await anyio.wait_all_tasks_blocked()
        for _ in range(times):
            limit.observe_submit(seconds, queued, 20)
        group.cancel_scope.cancel()


async def test_idle_runners_get_more_submits() -> None:
    limit = SubmitLimit("auto")
    await observe(limit, 0.1, queued=0, times=1000)
    assert limit.value == 40  # 400 per second
    await observe(limit, 0.1, queued=20, times=1000)
    assert (limit.value, limit.requests.total) == (8, 1)


async def test_fast_platform_needs_no_more_submits() -> None:
    limit = SubmitLimit("auto")
    await observe(limit, 0.005, queued=0, times=1000)
    assert (limit.value, limit.requests.total) == (8, 8)


async def test_given_submits_stay() -> None:
    limit = SubmitLimit(3)
    await observe(limit, 0.1, queued=0, times=100)
    assert (limit.value, limit.requests.total) == (3, 3)


def test_jobs_in_flight_count_at_the_mean() -> None:
    spending = Spending(10, Decimal(1), None)
    assert spending.can_start(9)
    assert not spending.can_start(10)
    spending.add(job("3"))
    spending.add(job("1"))
    assert spending.mean == 2
    assert spending.can_start(2)
    assert not spending.can_start(3)


@pytest.mark.parametrize(("price", "budget", "jobs"), [("0.025", 0.06, 2), ("0.5", 0.1, 0)])
def test_job_that_would_exceed_the_budget_is_not_started(
    price: str, budget: float, jobs: int
) -> None:
    spending = Spending(budget, Decimal(price), None)
    for _ in range(jobs):
        assert spending.can_start(0)
        spending.add(job(price))
    assert not spending.can_start(0)


def test_strict_budget_counts_the_highest_cost() -> None:
    spending = Spending(Budget(10, strict=True), Decimal(1), Decimal(1))
    spending.add(job("3"))
    assert spending.can_start(1)
    assert not spending.can_start(2)


def test_unknown_costs_are_not_counted() -> None:
    spending = Spending(None, None, None)
    spending.add(job())
    assert spending.mean is None
    assert spending.can_start(10**6)


@pytest.mark.parametrize(("stop_after", "failures"), [(3, 3), (0.5, 100), (1.0, 200)])
def test_failures_stop_the_batch(stop_after: int | float, failures: int) -> None:
    window = FailureWindow(stop_after)
    assert not window.add(failed=False)
    assert [window.add(failed=True) for _ in range(failures)] == [False] * (failures - 1) + [True]


def test_old_failures_leave_the_window() -> None:
    window = FailureWindow(0.5)
    for _ in range(99):
        window.add(failed=True)
    for _ in range(200):
        window.add(failed=False)
    assert not window.add(failed=True)
    assert not FailureWindow(None).add(failed=True)


def test_rate_is_that_of_the_latest_minutes() -> None:
    rate = Rate(0.0)
    for second in range(1, 1001):
        rate.add(float(second))
    assert rate.per_second(1000.0) == pytest.approx(1.0)
    assert rate.per_second(1300.0) == pytest.approx(0.5, abs=0.01)


def make_progress(**known: Any) -> Progress:
    values: dict[str, Any] = dict.fromkeys(Progress.__slots__, 0)
    values |= {"eta": None, **known}
    return Progress(**values)


def test_progress_is_one_line() -> None:
    progress = make_progress(
        total=20_000,
        done=9412,
        per_second=6.94,
        running=40,
        in_flight=80,
        cost=Decimal("235.3"),
        cost_at_end=Decimal(499),
        failed=19,
    )
    assert describe_progress(progress, 600) == (
        "9,412/20,000  47 %  6.9/s  40 running of 80  cost 235.30 of 600 (about 499.00 in all)  "
        "19 failed"
    )


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_progress_is_a_bar_on_a_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    progress = make_progress(total=4, done=3, cost=None)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await report_progress(lambda: progress, None, stream=stream)
    assert "3/4  75 %" in stream.getvalue()
    assert ("━" in stream.getvalue()) is is_terminal
