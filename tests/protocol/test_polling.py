"""Pauses between looks at a job: growing, bounded, in proportion, out of step."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fal_async._protocol.polling import (
    ALONE,
    IN_LINE,
    JITTER,
    LONGEST,
    Rhythm,
    polling_pauses,
    shared_interval,
)

RHYTHMS = pytest.mark.parametrize("rhythm", [ALONE, IN_LINE])


def middle() -> float:
    return 0.5


def test_waits_that_only_poll_look_often_at_first() -> None:
    pauses = list(islice(polling_pauses(middle, ALONE), 12))
    assert [round(pause, 3) for pause in pauses] == [
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


def test_waits_in_line_look_now_and_then() -> None:
    assert list(islice(polling_pauses(middle, IN_LINE), 5)) == [2.0, 4.0, 8.0, 15.0, 15.0]


def test_half_a_pause_is_a_tenth_of_the_time_waited() -> None:
    pauses = list(islice(polling_pauses(middle, ALONE), 11))
    assert 0.09 < pauses[-1] / 2 / sum(pauses) < 0.12


def test_ten_minutes_take_some_six_hundred_looks() -> None:
    waited, looks = 0.0, 0
    pauses = polling_pauses(middle, ALONE)
    while waited < 600:
        waited += next(pauses)
        looks += 1
    assert 600 < looks < 620


@RHYTHMS
@given(seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_every_pause_is_within_the_bounds(rhythm: Rhythm, seed: int) -> None:
    for pause in islice(polling_pauses(random.Random(seed).random, rhythm), 300):
        assert rhythm.first * (1 - JITTER) <= pause <= rhythm.longest * (1 + JITTER)


@RHYTHMS
def test_two_waits_do_not_ask_in_step(rhythm: Rhythm) -> None:
    one = islice(polling_pauses(random.Random(1).random, rhythm), 50)
    other = islice(polling_pauses(random.Random(2).random, rhythm), 50)
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_jitter_uses_the_whole_of_its_range() -> None:
    assert next(polling_pauses(lambda: 0.0, ALONE)) == ALONE.first * (1 - JITTER)
    assert next(polling_pauses(lambda: 1.0, ALONE)) == ALONE.first * (1 + JITTER)


@pytest.mark.parametrize("waiting", [1, 1000, 20_000, 1_000_000])
@pytest.mark.parametrize("luck", [0.0, 0.5, 1.0])
def test_no_job_is_looked_at_less_often_than_once_a_minute(waiting: int, luck: float) -> None:
    pauses = polling_pauses(lambda: luck, IN_LINE, lambda: shared_interval(waiting, 1000))
    assert all(pause <= LONGEST for pause in islice(pauses, 20))


def test_a_thousand_waits_look_within_three_seconds() -> None:
    assert next(polling_pauses(lambda: 1.0, IN_LINE, lambda: shared_interval(1000, 1000))) <= 3


def test_waits_keep_a_rate_together() -> None:
    assert shared_interval(20_000, 1000) == 20_000 / 500
    assert shared_interval(1000, 50) == 1000 / 50
