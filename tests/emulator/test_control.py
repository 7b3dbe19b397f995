"""Control of an emulator over HTTP, by processes that do not own it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fal_async.emulator import Emulator, Fault
from fal_async.emulator._fault_parser import parse_fault_text
from fal_async.errors import InvalidRequestError
from tests.support.http import echo, submit, wait_for_completed

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx


def test_counters_are_served(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submit(http)
    wait_for_completed(fal)
    assert http.get("/_emulator/counters").json() == {
        "acme/app": {
            "executions": 1,
            "running": 0,
            "queued": 0,
            "completed": 1,
            "cancelled": 0,
            "requests": {"submit": 1},
        }
    }


def test_faults_are_scheduled_and_removed(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fault = {"endpoint_id": "acme/app", "route": "run", "status": 503, "times": None}
    assert http.post("/_emulator/faults", json=fault).status_code == 200
    assert http.post("/run/acme/app", json={}).status_code == 503
    assert http.delete("/_emulator/faults").status_code == 200
    assert http.post("/run/acme/app", json={}).status_code == 200


def test_faults_spare_the_control(fal: Emulator, http: httpx.Client) -> None:
    fal.fail(None, Fault(status=503, times=None))
    assert http.get("/run/acme/app").status_code == 503
    assert http.get("/_emulator/counters").status_code == 200


def test_account_is_locked_over_http(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    http.post("/_emulator/lock", json={"after": 1})
    assert [http.post("/run/acme/app", json={}).status_code for _ in range(2)] == [200, 403]
    http.post("/_emulator/unlock")
    assert http.post("/run/acme/app", json={}).status_code == 200


def test_emulator_is_reset_over_http(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submit(http)
    wait_for_completed(fal)
    assert http.post("/_emulator/reset").status_code == 200
    assert (dict(fal.jobs), fal.counters("acme/app").executions) == ({}, 0)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (lambda http: http.get("/_emulator/nothing"), 404),
        (lambda http: http.post("/_emulator/faults", json=[]), 422),
        (lambda http: http.post("/_emulator/faults", json={"statuz": 1}), 422),
        (lambda http: http.post("/_emulator/faults", json={"endpoint_id": "x"}), 422),
        (lambda http: http.post("/_emulator/faults", json={"share": 2}), 422),
        (lambda http: http.post("/_emulator/lock", json={"after": "soon"}), 422),
        (lambda http: http.get("/_emulator/counters", headers={"Authorization": "Key a:b"}), 401),
    ],
)
def test_invalid_control_is_refused(
    http: httpx.Client, request_: Callable[[httpx.Client], httpx.Response], status: int
) -> None:
    assert request_(http).status_code == status


def test_control_does_not_hide_the_platform(fal: Emulator, http: httpx.Client) -> None:
    response = http.get("/_emulator/counters", headers={"Host": "fal.run"})
    assert (response.status_code, fal.requests[-1].host) == (404, "run")


@pytest.mark.parametrize(
    ("text", "endpoint_id", "fault"),
    [
        ("drop", None, Fault(drop=True)),
        (
            "endpoint_id=acme/app, route=submit, status=503, share=0.2, seed=7",
            "acme/app",
            Fault(route="submit", status=503, share=0.2, seed=7),
        ),
        ('{"route": "result", "body": {"a": [1, 2]}, "status": 500}', None, None),
        ("times=null,reset", None, Fault(times=None, reset=True)),
    ],
)
def test_faults_are_parsed_from_text(text: str, endpoint_id: str | None, fault: Any) -> None:
    parsed = parse_fault_text(text)
    assert parsed == (endpoint_id, fault or Fault(route="result", body={"a": [1, 2]}, status=500))


@pytest.mark.parametrize("text", ["", "statuz=1", "status=many", "route=nowhere", "{", "share=2"])
def test_invalid_fault_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse_fault_text(text)
