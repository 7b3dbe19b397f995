"""When the other side of a connection is given up."""

from __future__ import annotations

import pytest

from fal_async._transport.pulse import Pulse

ASKED = Pulse(heard=5, taken=1000, waiting=0, is_heard=True)


@pytest.mark.parametrize(
    ("now", "is_dead"),
    [
        pytest.param(Pulse(5, 1000, 0, is_heard=True), True, id="silent"),
        pytest.param(Pulse(6, 1000, 0, is_heard=True), False, id="it answered"),
        pytest.param(Pulse(5, 1000, 0, is_heard=False), False, id="nobody listens"),
        pytest.param(Pulse(5, 1500, 0, is_heard=True), True, id="the network took the question"),
        pytest.param(Pulse(5, 1500, 10, is_heard=True), False, id="the question is under way"),
        pytest.param(Pulse(5, 1000, 10, is_heard=True), True, id="the question is stuck"),
    ],
)
def test_the_other_side_is_dead_when_it_would_have_answered(now: Pulse, is_dead: bool) -> None:
    assert now.is_dead_since(ASKED) is is_dead
