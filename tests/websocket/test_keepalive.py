"""Keepalive: detection of lost connections."""

from __future__ import annotations

import pytest

from fal_async._websocket.connection import ActivitySnapshot

AT_PING = ActivitySnapshot(read_count=5, sent=1000, unsent=0, is_reading=True)


@pytest.mark.parametrize(
    ("now", "is_lost"),
    [
        pytest.param(ActivitySnapshot(5, 1000, 0, is_reading=True), True, id="no data"),
        pytest.param(ActivitySnapshot(6, 1000, 0, is_reading=True), False, id="data received"),
        pytest.param(ActivitySnapshot(5, 1000, 0, is_reading=False), False, id="not reading"),
        pytest.param(ActivitySnapshot(5, 1500, 0, is_reading=True), True, id="ping sent"),
        pytest.param(
            ActivitySnapshot(5, 1500, 10, is_reading=True), False, id="ping delayed, sending"
        ),
        pytest.param(
            ActivitySnapshot(5, 1000, 10, is_reading=True), True, id="ping delayed, stuck"
        ),
    ],
)
def test_connection_is_lost_without_activity(now: ActivitySnapshot, is_lost: bool) -> None:
    assert now.is_lost_since(AT_PING) is is_lost
