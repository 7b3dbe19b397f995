"""Requirements of unmodified clients, one test each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fal_async.emulator import AppError, Emulator
from tests.support.http import Arguments, gated_echo, make_client, submit, wait_for_completed

if TYPE_CHECKING:
    import httpx


@pytest.fixture
def jobs(fal: Emulator, http: httpx.Client) -> dict[str, dict[str, Any]]:
    """Return one job in each state."""

    @fal.endpoint("acme/done")
    def done(arguments: Arguments) -> Arguments:
        if "fail" in arguments:
            raise AppError(422, "no")
        return {"done": True}

    fal.register("acme/app", gated_echo(fal.gate()), concurrency=1)
    submitted = {
        "completed": submit(http, "acme/done"),
        "failed": submit(http, "acme/done", json={"fail": True}),
        "running": submit(http),
        "queued": submit(http),
        "cancelled": submit(http),
    }
    http.put(submitted["cancelled"]["cancel_url"])
    wait_for_completed(fal, 2, "acme/done")
    return submitted


STATES = ["completed", "failed", "running", "queued", "cancelled"]
ENDED = ["completed", "failed", "cancelled"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("logs", ["", "?logs=1", "?logs=0", "?logs=true", "?logs=false"])
def test_status_has_every_key_clients_index(
    http: httpx.Client, jobs: dict[str, dict[str, Any]], state: str, logs: str
) -> None:
    response = http.get(jobs[state]["status_url"] + logs)
    body = response.json()
    assert response.status_code == (200 if state in ENDED else 202)
    assert body["status"] == {"running": "IN_PROGRESS", "queued": "IN_QUEUE"}.get(
        state, "COMPLETED"
    )
    for key in ("request_id", "response_url", "status_url", "cancel_url"):
        assert body[key] == jobs[state][key]
    wants_logs = logs in {"?logs=1", "?logs=true"}
    assert body["logs"] == ([] if wants_logs and state != "queued" else None)
    assert isinstance(body["metrics"], dict)
    assert ("queue_position" in body) == (state == "queued")


@pytest.mark.parametrize("state", STATES)
def test_job_responses_carry_the_request_id(
    http: httpx.Client, jobs: dict[str, dict[str, Any]], state: str
) -> None:
    job = jobs[state]
    responses = [
        http.get(job["status_url"]),
        http.get(job["response_url"]),
        http.put(job["cancel_url"]),
    ]
    for response in responses:
        assert response.headers["x-fal-request-id"] == job["request_id"]


@pytest.mark.parametrize("state", STATES)
def test_trailing_slash_is_not_redirected(
    http: httpx.Client, jobs: dict[str, dict[str, Any]], state: str
) -> None:
    status = http.get(jobs[state]["status_url"] + "/", params={"logs": 0})
    assert status.status_code == (200 if state in ENDED else 202)
    expected = {"completed": 200, "failed": 422, "cancelled": 499}.get(state, 400)
    assert http.get(jobs[state]["response_url"] + "/").status_code == expected


@pytest.mark.parametrize(
    ("state", "status", "cancel_status"),
    [
        ("completed", 400, "ALREADY_COMPLETED"),
        ("failed", 400, "ALREADY_COMPLETED"),
        ("cancelled", 400, "ALREADY_COMPLETED"),
        ("running", 202, "CANCELLATION_REQUESTED"),
        ("queued", 200, "OK"),
    ],
)
def test_cancel_responds_in_every_job_state(
    http: httpx.Client,
    jobs: dict[str, dict[str, Any]],
    state: str,
    status: int,
    cancel_status: str,
) -> None:
    response = http.put(jobs[state]["cancel_url"])
    assert (response.status_code, response.json()) == (status, {"status": cancel_status})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/run/acme/done"),
        ("POST", "/run/acme/done/nowhere"),
        ("POST", "/run/acme/nothing"),
        ("GET", "/run/acme/done"),
        ("POST", "/queue/acme/nothing"),
        ("GET", "/queue/acme/done/requests/1/status"),
        ("GET", "/queue/acme/done/requests/1"),
        ("PUT", "/queue/acme/done/requests/1/cancel"),
        ("POST", "/queue/acme/done/requests/1/cancel"),
        ("GET", "/"),
        ("OPTIONS", "/run/acme/done"),
    ],
)
def test_every_response_carries_a_request_id(
    http: httpx.Client, jobs: dict[str, dict[str, Any]], method: str, path: str
) -> None:
    assert jobs
    assert http.request(method, path, json={}).headers["x-fal-request-id"]
    del http.headers["Authorization"]
    assert http.request(method, path, json={}).headers["x-fal-request-id"]


def test_model_error_is_not_a_platform_error(
    http: httpx.Client, jobs: dict[str, dict[str, Any]]
) -> None:
    assert "error" not in http.get(jobs["failed"]["status_url"]).json()
    body = http.get(jobs["cancelled"]["status_url"]).json()
    assert body["error_type"] == "client_cancelled"
    assert body["error"] == "Request cancelled by the client."


def test_account_limit_rejects_only_runs() -> None:
    with Emulator(concurrency=1) as fal, make_client(fal) as http:
        fal.register("acme/app", gated_echo(fal.gate()))
        submit(http)
        assert submit(http)["queue_position"] == 0
        assert http.post("/run/acme/app", json={}).status_code == 429
        assert fal.counters("acme/app").queued == 1
