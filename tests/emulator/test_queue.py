"""The queue API: submit, status, logs, limits, deadlines and results."""

from __future__ import annotations

import uuid

import httpx
import pytest

from fal_async.emulator import AppError, Emulator, Job
from fal_async.errors import InvalidRequestError
from tests.support.http import Arguments, echo, gated_echo, make_client, submit, wait_for_completed


def test_submit_returns_job_urls(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    response = http.post("/queue/acme/app", json={"a": 1})
    assert response.status_code == 200
    request_id = response.json()["request_id"]
    assert str(uuid.UUID(request_id)) == request_id
    url = f"{fal.url}/queue/acme/app/requests/{request_id}"
    assert response.json() == {
        "status": "IN_QUEUE",
        "request_id": request_id,
        "gateway_request_id": request_id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
        "queue_position": 0,
    }
    assert response.headers["x-fal-request-id"] == request_id


def test_queued_job_has_a_position(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate), concurrency=1)
    running, first, second = (submit(http) for _ in range(3))
    assert [running["queue_position"], first["queue_position"], second["queue_position"]] == [
        0,
        0,
        1,
    ]
    response = http.get(second["status_url"])
    assert response.status_code == 202
    assert response.json() == {
        "status": "IN_QUEUE",
        "request_id": second["request_id"],
        "response_url": second["response_url"],
        "status_url": second["status_url"],
        "cancel_url": second["cancel_url"],
        "queue_position": 1,
        "logs": None,
        "metrics": {},
    }
    http.put(first["cancel_url"])
    assert http.get(second["status_url"]).json()["queue_position"] == 0


def test_running_job_has_no_position(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate))
    submitted = submit(http)
    response = http.get(submitted["status_url"])
    assert response.status_code == 202
    assert response.json() == {
        "status": "IN_PROGRESS",
        "request_id": submitted["request_id"],
        "response_url": submitted["response_url"],
        "status_url": submitted["status_url"],
        "cancel_url": submitted["cancel_url"],
        "logs": None,
        "metrics": {},
    }


def test_completed_job_reports_its_duration(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http, json={"a": [1]})
    wait_for_completed(fal)
    response = http.get(submitted["status_url"])
    assert response.status_code == 200
    body = response.json()
    assert body.pop("metrics")["inference_time"] > 0
    assert body == {
        "status": "COMPLETED",
        "request_id": submitted["request_id"],
        "response_url": submitted["response_url"],
        "status_url": submitted["status_url"],
        "cancel_url": submitted["cancel_url"],
        "logs": None,
    }
    result = http.get(submitted["response_url"])
    assert (result.status_code, result.json()) == (200, {"a": [1]})
    assert result.headers["x-fal-request-id"] == submitted["request_id"]
    assert result.headers["x-fal-billable-units"] == "1"
    assert result.headers["x-fal-served-from"]


def test_result_is_refused_before_completion(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", gated_echo(fal.gate()))
    response = http.get(submit(http)["response_url"])
    assert (response.status_code, response.json()) == (
        400,
        {"detail": "Request is still in progress"},
    )


@pytest.mark.parametrize("tail", ["", "/status", "/status/stream", "/response"])
def test_unknown_request_returns_404(fal: Emulator, http: httpx.Client, tail: str) -> None:
    fal.register("acme/app", echo)
    response = http.get(f"/queue/acme/app/requests/{uuid.uuid4()}{tail}")
    assert (response.status_code, response.json()) == (404, {"status": "NOT_FOUND"})


@pytest.mark.parametrize("made_up", ["%E2%82%AC", "%0D%0AX-Own:%201", "%00", "a%20b", "%FF", ""])
@pytest.mark.parametrize("tail", ["/status", "/cancel"])
def test_invalid_request_id_returns_404(
    fal: Emulator, http: httpx.Client, made_up: str, tail: str
) -> None:
    fal.register("acme/app", echo)
    method = "PUT" if tail == "/cancel" else "GET"
    response = http.request(method, f"/queue/acme/app/requests/{made_up}{tail}")
    assert (response.status_code, response.json()) == (404, {"status": "NOT_FOUND"})
    request_id = response.headers["x-fal-request-id"]
    assert str(uuid.UUID(request_id)) == request_id
    assert "x-own" not in response.headers


def test_job_of_another_app_returns_404(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.register("acme/other", echo)
    request_id = submit(http)["request_id"]
    response = http.get(f"/queue/acme/other/requests/{request_id}/status")
    assert (response.status_code, response.json()) == (404, {"status": "NOT_FOUND"})


def test_queue_routes_accept_one_method_each(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", gated_echo(fal.gate()))
    submitted = submit(http)
    wrong = [
        ("GET", "/queue/acme/app", "POST"),
        ("POST", submitted["status_url"], "GET"),
        ("POST", submitted["response_url"], "GET"),
        ("POST", submitted["cancel_url"], "PUT"),
    ]
    for method, url, allowed in wrong:
        response = http.request(method, url)
        assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert fal.counters("acme/app").executions == 1


def test_endpoint_concurrency_limits_jobs(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate), concurrency=2)
    for _ in range(5):
        submit(http)
    counters = fal.counters("acme/app")
    fal.wait_for(lambda: counters.executions == 2)
    assert (counters.running, counters.queued) == (2, 3)
    gate.open()
    wait_for_completed(fal, 5)
    assert (counters.running, counters.queued, counters.executions) == (0, 0, 5)


def test_account_concurrency_limits_all_jobs() -> None:
    with Emulator(concurrency=1) as fal, make_client(fal) as http:
        first, second = fal.gate(), fal.gate()
        fal.register("acme/first", gated_echo(first))
        fal.register("acme/second", gated_echo(second))
        submit(http, "acme/first")
        submit(http, "acme/second")
        assert (fal.counters("acme/first").running, fal.counters("acme/second").queued) == (1, 1)
        first.open()
        fal.wait_for(lambda: fal.counters("acme/second").executions == 1)


def test_low_priority_job_runs_last(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", gated_echo(fal.gate()), concurrency=1)
    submit(http)
    low = submit(http, headers={"X-Fal-Queue-Priority": "low"})
    normal = submit(http, headers={"X-Fal-Queue-Priority": "urgent"})
    assert normal["queue_position"] == 0
    assert http.get(low["status_url"]).json()["queue_position"] == 1


def test_full_queue_rejects_submit(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", gated_echo(fal.gate()), concurrency=1)
    for _ in range(3):
        submit(http)
    response = http.post("/queue/acme/app?fal_max_queue_length=1", json={})
    assert response.status_code == 429
    assert response.headers["x-fal-needs-retry"] == "1"
    assert http.post("/queue/acme/app?fal_max_queue_length=2", json={}).status_code == 200
    response = http.post("/queue/acme/app?fal_max_queue_length=two", json={})
    assert (response.status_code, response.json()["error_type"]) == (400, "bad_request")


@pytest.mark.parametrize("flag", ["1", "true"])
def test_requested_logs_are_cumulative(fal: Emulator, http: httpx.Client, flag: str) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments, job: Job) -> None:
        job.log("step 1")
        job.log("step 2", "ERROR")

    submitted = submit(http)
    wait_for_completed(fal)
    logs = http.get(submitted["status_url"], params={"logs": flag}).json()["logs"]
    assert [(line["message"], line["level"], line["source"]) for line in logs] == [
        ("step 1", "INFO", "USER"),
        ("step 2", "ERROR", "USER"),
    ]
    assert all(line["timestamp"].endswith("Z") for line in logs)
    for no in ("0", "false"):
        assert http.get(submitted["status_url"], params={"logs": no}).json()["logs"] is None


def test_logs_may_be_a_sliding_window() -> None:
    with Emulator(log_window=2) as fal, make_client(fal) as http:

        @fal.endpoint("acme/app")
        def app(arguments: Arguments, job: Job) -> None:
            for step in range(5):
                job.log(f"step {step}")

        submitted = submit(http)
        wait_for_completed(fal)
        logs = http.get(submitted["status_url"], params={"logs": "1"}).json()["logs"]
        assert [line["message"] for line in logs] == ["step 3", "step 4"]


@pytest.mark.parametrize("header", ["X-Fal-Request-Start-Timeout", "X-Fal-Request-Timeout", "both"])
def test_job_past_start_timeout_ends_with_504(
    fal: Emulator, http: httpx.Client, header: str
) -> None:
    fal.register("acme/app", gated_echo(fal.gate()), concurrency=1)
    submit(http)
    headers = {header: "0.11"}
    if header == "both":
        headers = {"X-Fal-Request-Start-Timeout": "0.11", "X-Fal-Request-Timeout": "3600"}
    submitted = submit(http, headers=headers)
    wait_for_completed(fal)
    status = http.get(submitted["status_url"])
    assert status.status_code == 200
    assert status.json()["status"] == "COMPLETED"
    assert status.json()["error"] == "Request timed out"
    assert status.json()["error_type"] == "request_timeout"
    result = http.get(submitted["response_url"])
    assert result.status_code == 504
    assert result.json() == {"detail": "Request timed out", "error_type": "request_timeout"}
    assert result.headers["x-fal-request-timeout-type"] == "user"
    assert result.headers["x-fal-error-type"] == "request_timeout"
    assert fal.counters("acme/app").executions == 1


@pytest.mark.parametrize("seconds", ["soon", "0.1", "-1", "nan", "inf", ""])
def test_invalid_start_timeout_is_rejected(fal: Emulator, http: httpx.Client, seconds: str) -> None:
    fal.register("acme/app", echo)
    for url in ("/queue/acme/app", "/run/acme/app"):
        response = http.post(url, json={}, headers={"X-Fal-Request-Start-Timeout": seconds})
        assert (response.status_code, response.json()["error_type"]) == (400, "bad_request")
        assert response.headers["x-fal-error-type"] == "bad_request"
    assert fal.counters("acme/app").executions == 0


def test_started_job_meets_its_start_deadline(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate))
    slow = submit(http, headers={"X-Fal-Request-Start-Timeout": "0.11"})
    # A second job with a later deadline shows that the first deadline has passed.
    fal.register("acme/blocked", gated_echo(gate), concurrency=1)
    submit(http, "acme/blocked")
    submit(http, "acme/blocked", headers={"X-Fal-Request-Start-Timeout": "0.12"})
    wait_for_completed(fal, 1, "acme/blocked")
    gate.open()
    wait_for_completed(fal)
    assert http.get(slow["response_url"]).status_code == 200


def test_completed_job_has_no_deadline(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    quick = submit(http, headers={"X-Fal-Request-Start-Timeout": "0.11"})
    wait_for_completed(fal)
    fal.register("acme/blocked", echo, concurrency=0)
    submit(http, "acme/blocked", headers={"X-Fal-Request-Start-Timeout": "0.12"})
    wait_for_completed(fal, 1, "acme/blocked")
    assert http.get(quick["response_url"]).status_code == 200
    counters = fal.counters("acme/app")
    assert (counters.queued, counters.completed) == (0, 1)


def test_large_results_expire_earlier() -> None:
    now = [0.0]
    with Emulator(clock=lambda: now[0]) as fal, make_client(fal) as http:

        @fal.endpoint("acme/app")
        def app(arguments: Arguments) -> bytes:
            return bytes(arguments["size"])

        small = submit(http, json={"size": 9_999})
        large = submit(http, json={"size": 10_000})
        wait_for_completed(fal, 2)
        for seconds, expected in [(359, [200, 200]), (360, [200, 404]), (3600, [404, 404])]:
            now[0] = seconds
            responses = [http.get(job["response_url"]) for job in (small, large)]
            assert [response.status_code for response in responses] == expected
        assert http.get(small["response_url"]).json() == {"status": "NOT_FOUND"}
        assert http.get(small["status_url"]).status_code == 404
        assert fal.jobs == fal._platform.jobs._by_id == {}


def test_speed_shortens_the_life_of_results() -> None:
    now = 0.0
    with Emulator(clock=lambda: now, speed=60) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        submitted = submit(http)
        wait_for_completed(fal)
        for seconds, expected in [(59, 200), (60, 404)]:
            now = float(seconds)
            assert http.get(submitted["response_url"]).status_code == expected


def test_speed_can_be_changed_later() -> None:
    now = 0.0
    with Emulator(clock=lambda: now) as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        fal.configure(speed=3600)
        submitted = submit(http)
        wait_for_completed(fal)
        now = 1.0
        assert http.get(submitted["response_url"]).status_code == 404
        with pytest.raises(InvalidRequestError, match="speed must be positive, got 0"):
            fal.configure(speed=0)


@pytest.mark.parametrize("speed", [0, -1, float("nan")])
def test_speed_must_be_positive(speed: float) -> None:
    with pytest.raises(InvalidRequestError, match="speed must be positive, got"):
        Emulator(speed=speed)


def test_job_can_be_expired_manually(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http)
    wait_for_completed(fal)
    fal.expire(submitted["request_id"])
    assert http.get(submitted["response_url"]).status_code == 404


def test_validation_error_appears_only_in_result(fal: Emulator, http: httpx.Client) -> None:
    problem = {"loc": ["body", "seed"], "msg": "must be even", "type": "value_error"}

    @fal.endpoint("acme/app")
    def app(arguments: Arguments) -> None:
        raise AppError(422, [problem])

    submitted = submit(http)
    wait_for_completed(fal)
    status = http.get(submitted["status_url"])
    assert (status.status_code, status.json()["status"]) == (200, "COMPLETED")
    assert "error" not in status.json()
    result = http.get(submitted["response_url"])
    assert (result.status_code, result.json()) == (422, {"detail": [problem]})


def test_infrastructure_error_appears_in_status(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments) -> None:
        raise AppError(500, "on fire", error_type="internal_error", headers={"X-Extra": "yes"})

    submitted = submit(http)
    wait_for_completed(fal)
    status = http.get(submitted["status_url"]).json()
    assert (status["error"], status["error_type"]) == ("on fire", "internal_error")
    result = http.get(submitted["response_url"])
    assert result.status_code == 500
    assert result.json() == {"detail": "on fire", "error_type": "internal_error"}
    assert result.headers["x-fal-error-type"] == "internal_error"
    assert result.headers["x-extra"] == "yes"


def test_crash_returns_500_and_logs_a_traceback(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments) -> None:
        raise LookupError("no such cat")

    submitted = submit(http)
    wait_for_completed(fal)
    status = http.get(submitted["status_url"], params={"logs": "1"}).json()
    (line,) = status["logs"]
    assert (
        httpx.Response(200, text=line["message"])
        .json()["traceback"]
        .endswith("LookupError: no such cat\n")
    )
    assert status["error_type"] == "runner_server_error"
    result = http.get(submitted["response_url"])
    assert (result.status_code, result.json()) == (500, {"detail": "Internal Server Error"})


def test_platform_headers_reach_the_runner(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    headers = {
        "X-Fal-Tags": "team=red,broken, =x,run=7,fal.own=1,Up=1,formula=a=b",
        "X-Fal-Store-IO": "0",
        "X-Fal-Runner-Hint": "lora-1",
        "X-Fal-Queue-Priority": "low",
    }
    request_id = submit(http, json={"a": 1}, headers=headers)["request_id"]
    job = fal.jobs[request_id]
    assert job.tags == {"team": "red", "run": "7", "formula": "a=b"}
    assert job.headers["x-fal-store-io"] == "0"
    assert job.headers["x-fal-runner-hint"] == "lora-1"
    assert (job.priority, job.arguments) == ("low", {"a": 1})


def test_webhook_parameter_is_not_part_of_the_id(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http, params={"fal_webhook": "https://me.invalid/hook?a=b"})
    assert fal.jobs[submitted["request_id"]].endpoint == "acme/app"
