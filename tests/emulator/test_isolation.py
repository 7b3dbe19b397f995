"""Settings that change while the emulator runs, and blocks whose changes are undone."""

from __future__ import annotations

import pytest

from fal_async.emulator import Emulator
from fal_async.errors import InvalidRequestError
from tests.support.http import echo, make_client


def test_setting_applies_to_later_requests(fal: Emulator) -> None:
    page = {"Origin": "https://page.example"}
    fal.register("acme/echo", echo)
    with make_client(fal) as http:
        assert http.post("/run/acme/echo", json={}, headers=page).status_code == 403
        fal.configure(allow_origins=["https://page.example"])
        assert http.post("/run/acme/echo", json={}, headers=page).status_code == 200


@pytest.mark.parametrize("name", ["port", "clock", "compression", "speling"])
def test_other_settings_are_refused(fal: Emulator, name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"concurrency.*, got {name}"):
        fal.configure(**{name: 1})


def test_changes_of_a_block_are_undone(fal: Emulator) -> None:
    fal.register("acme/shared", echo)
    with fal.isolated(), make_client(fal) as http:
        gate = fal.gate()
        fal.register("acme/shared", lambda arguments: {"changed": True})
        fal.register("acme/waits", lambda arguments: gate.wait_sync())
        fal.accept_key("another:key")
        fal.configure(concurrency=1)
        fal.set_price("acme/shared", 1)
        http.post("/queue/acme/waits", json={})
        fal.wait_for(lambda: fal.counters("acme/waits").running == 1)
    assert gate.is_open
    assert fal.endpoints == ["acme/shared"]
    assert (fal.jobs, fal.requests, fal._platform.settings.concurrency) == ({}, [], None)
    with make_client(fal) as http:
        assert http.post("/run/acme/shared", json={"a": 1}).json() == {"a": 1}
        another = {"Authorization": "Key another:key"}
        assert http.post("/run/acme/shared", json={}, headers=another).status_code == 401
        parameters = {"endpoint_id": "acme/shared"}
        assert http.get("/platform/v1/models/pricing", params=parameters).json()["prices"] == []


def test_block_needs_no_running_emulator() -> None:
    fal = Emulator()
    with fal.isolated():
        fal.register("acme/echo", echo)
        fal.configure(attempts=1)
    assert (fal.endpoints, fal._platform.settings.attempts) == ([], 10)


def test_missing_endpoints_are_recorded(fal: Emulator) -> None:
    fal.register("acme/echo", echo)
    with make_client(fal) as http:
        http.post("/run/acme/echo", json={})
        http.post("/run/acme/missing", json={})
        http.get("/queue/acme/missing/requests/1/status")
    assert [request.endpoint for request in fal.unexpected_requests] == ["acme/missing"]
    fal.reset()
    assert fal.unexpected_requests == []
