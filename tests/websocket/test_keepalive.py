"""When the other side of a connection is given up."""

from __future__ import annotations

import pytest

from fal_async._websocket.connection import _ActivitySnapshot

ASKED = _ActivitySnapshot(heard=5, taken=1000, waiting=0, is_heard=True)


@pytest.mark.parametrize(
    ("now", "is_dead"),
    [
        pytest.param(_ActivitySnapshot(5, 1000, 0, is_heard=True), True, id="silent"),
        pytest.param(_ActivitySnapshot(6, 1000, 0, is_heard=True), False, id="it answered"),
        pytest.param(_ActivitySnapshot(5, 1000, 0, is_heard=False), False, id="nobody listens"),
        pytest.param(
            _ActivitySnapshot(5, 1500, 0, is_heard=True), True, id="the network took the question"
        ),
        pytest.param(
            _ActivitySnapshot(5, 1500, 10, is_heard=True), False, id="the question is under way"
        ),
        pytest.param(
            _ActivitySnapshot(5, 1000, 10, is_heard=True), True, id="the question is stuck"
        ),
    ],
)
def test_the_other_side_is_dead_when_it_would_have_answered(
    now: _ActivitySnapshot, is_dead: bool
) -> None:
    assert now.is_unresponsive_since(ASKED) is is_dead
