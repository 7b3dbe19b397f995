"""Rankings, compared with a search of all members."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fal_async._dispatch.fair_slots import Ranking

CHANGES = st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 3)))


@given(changes=CHANGES)
def test_lowest_and_highest_members_are_found(changes: list[tuple[int, int | None]]) -> None:
    ranking = Ranking[int]()
    numbers: dict[int, int] = {}
    for member, number in changes:
        ranking.set(member, number)
        if number is None:
            numbers.pop(member, None)
        else:
            numbers[member] = number
        lowest, highest = ranking.min(), ranking.max()
        assert len(ranking) == len(numbers)
        assert (lowest is None) == (highest is None) == (not numbers)
        if lowest is not None and highest is not None:
            assert numbers[lowest] == min(numbers.values())
            assert numbers[highest] == max(numbers.values())


def test_members_with_the_same_number_have_an_order() -> None:
    ranking = Ranking[str]()
    for member in "abc":
        ranking.set(member, 1)
    ranking.set("a", 2)
    ranking.set("a", 1)
    assert ranking.min() == ranking.max() == "b"
