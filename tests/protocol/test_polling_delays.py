"""Polling delays: growth, limits, jitter and a shared rate."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_async._protocol.retry import (
    JITTER,
    LONGEST,
    POLLING,
    WAITING_FOR_STREAM,
    BackoffSchedule,
    backoff_delays,
    shared_interval,
)

RHYTHMS = pytest.mark.parametrize("polling", [POLLING, WAITING_FOR_STREAM])


def middle() -> float:
    return 0.5


def test_polling_starts_with_short_delays() -> None:
    delays = list(islice(backoff_delays(middle, POLLING), 12))
    assert [round(delay, 3) for delay in delays] == [
        0.1,
        0.125,
        0.156,
        0.195,
        0.244,
        0.305,
        0.381,
        0.477,
        0.596,
        0.745,
        0.931,
        1.0,
    ]


def test_queued_waits_poll_rarely() -> None:
    assert list(islice(backoff_delays(middle, WAITING_FOR_STREAM), 5)) == [
        2.0,
        4.0,
        8.0,
        15.0,
        15.0,
    ]


def test_median_delay_is_a_tenth_of_the_wait() -> None:
    delays = list(islice(backoff_delays(middle, POLLING), 11))
    assert 0.09 < delays[-1] / 2 / sum(delays) < 0.12


def test_ten_minutes_take_about_600_polls() -> None:
    waited, looks = 0.0, 0
    delays = backoff_delays(middle, POLLING)
    while waited < 600:
        waited += next(delays)
        looks += 1
    assert 600 < looks < 620


@RHYTHMS
@given(seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_every_delay_is_within_its_limits(polling: BackoffSchedule, seed: int) -> None:
    for delay in islice(backoff_delays(random.Random(seed).random, polling), 300):
        assert polling.first * (1 - JITTER) <= delay <= polling.longest * (1 + JITTER)


@RHYTHMS
def test_two_waits_do_not_poll_in_step(polling: BackoffSchedule) -> None:
    one = islice(backoff_delays(random.Random(1).random, polling), 50)
    other = islice(backoff_delays(random.Random(2).random, polling), 50)
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_jitter_covers_its_whole_range() -> None:
    assert next(backoff_delays(lambda: 0.0, POLLING)) == POLLING.first * (1 - JITTER)
    assert next(backoff_delays(lambda: 1.0, POLLING)) == POLLING.first * (1 + JITTER)


@pytest.mark.parametrize("waiting", [1, 1000, 20_000, 1_000_000])
@pytest.mark.parametrize("luck", [0.0, 0.5, 1.0])
def test_every_job_is_polled_once_a_minute(waiting: int, luck: float) -> None:
    delays = backoff_delays(
        lambda: luck, WAITING_FOR_STREAM, lambda: shared_interval(waiting, 1000)
    )
    assert all(delay <= LONGEST for delay in islice(delays, 20))


def test_thousand_waits_poll_within_three_seconds() -> None:
    assert (
        next(backoff_delays(lambda: 1.0, WAITING_FOR_STREAM, lambda: shared_interval(1000, 1000)))
        <= 3
    )


def test_waits_share_a_polling_rate() -> None:
    assert shared_interval(20_000, 1000) == 20_000 / 500
    assert shared_interval(1000, 50) == 1000 / 50
