"""Pauses between looks at a job: short at first, bounded, in proportion, out of step."""

from __future__ import annotations

import random
from itertools import islice, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from fal_async._protocol.polling import FIRST, GROWTH, JITTER, LONGEST, polling_pauses


def middle() -> float:
    return 0.5


def test_without_jitter_the_first_pause_is_short_and_the_last_one_the_longest() -> None:
    pauses = list(islice(polling_pauses(middle), 500))
    assert pauses[0] == FIRST
    assert pauses[-1] == LONGEST
    assert pauses == sorted(pauses)


def test_the_pauses_are_these() -> None:
    pauses = list(islice(polling_pauses(middle), 12))
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
    assert FIRST * (1 + JITTER) == 0.125


def test_until_pauses_are_at_their_longest_half_a_pause_is_a_tenth_of_the_time_waited() -> None:
    waited = 0.0
    for pause in islice(polling_pauses(middle), 11):
        assert pause / 2 <= FIRST / 2 + waited / 8
        waited += pause
    assert 0.09 < pause / 2 / waited < 0.12


def test_a_pause_grows_by_a_quarter_at_most() -> None:
    pauses = list(islice(polling_pauses(middle), 200))
    assert all(later <= earlier * GROWTH for earlier, later in pairwise(pauses))


def test_ten_minutes_take_some_six_hundred_looks() -> None:
    waited, looks = 0.0, 0
    pauses = polling_pauses(middle)
    while waited < 600:
        waited += next(pauses)
        looks += 1
    assert 600 < looks < 620


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_every_pause_is_within_the_bounds(seed: int) -> None:
    for pause in islice(polling_pauses(random.Random(seed).random), 300):
        assert FIRST * (1 - JITTER) <= pause <= LONGEST * (1 + JITTER)


def test_two_waits_do_not_ask_in_step() -> None:
    one = islice(polling_pauses(random.Random(1).random), 50)
    other = islice(polling_pauses(random.Random(2).random), 50)
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_jitter_uses_the_whole_of_its_range() -> None:
    assert next(polling_pauses(lambda: 0.0)) == FIRST * (1 - JITTER)
    assert next(polling_pauses(lambda: 1.0)) == FIRST * (1 + JITTER)
