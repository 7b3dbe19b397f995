"""When the other side of a connection is given up."""

from __future__ import annotations

import pytest

from fal_async._websocket.connection import ActivitySnapshot

ASKED = ActivitySnapshot(read_count=5, sent=1000, unsent=0, is_reading=True)


@pytest.mark.parametrize(
    ("now", "is_dead"),
    [
        pytest.param(ActivitySnapshot(5, 1000, 0, is_reading=True), True, id="silent"),
        pytest.param(ActivitySnapshot(6, 1000, 0, is_reading=True), False, id="it answered"),
        pytest.param(ActivitySnapshot(5, 1000, 0, is_reading=False), False, id="nobody listens"),
        pytest.param(
            ActivitySnapshot(5, 1500, 0, is_reading=True), True, id="the network took the question"
        ),
        pytest.param(
            ActivitySnapshot(5, 1500, 10, is_reading=True), False, id="the question is under way"
        ),
        pytest.param(
            ActivitySnapshot(5, 1000, 10, is_reading=True), True, id="the question is stuck"
        ),
    ],
)
def test_the_other_side_is_dead_when_it_would_have_answered(
    now: ActivitySnapshot, is_dead: bool
) -> None:
    assert now.is_lost_since(ASKED) is is_dead
