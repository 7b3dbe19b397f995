"""Routing: hosts, paths and the URLs in responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.http import echo, submit, wait_for_completed

if TYPE_CHECKING:
    import httpx

    from fal_async.emulator import Emulator, Job
    from tests.support.http import Arguments


def where(arguments: Arguments, job: Job) -> Arguments:
    return {"endpoint": job.endpoint, "path": job.path}


def at(host: str) -> dict[str, str]:
    return {"Host": host}


@pytest.mark.parametrize("host", ["fal.run", "falrun.com", "FAL.RUN", "fal.run:443"])
def test_host_name_routes_direct_runs(fal: Emulator, http: httpx.Client, host: str) -> None:
    fal.register("acme/app", echo)
    assert http.post("/acme/app", json={"a": 1}, headers=at(host)).json() == {"a": 1}
    assert fal.requests[0].host == "run"


@pytest.mark.parametrize("host", ["queue.fal.run", "queue.falrun.com", "queue.fal.run:8080"])
def test_host_name_routes_queue_requests(fal: Emulator, http: httpx.Client, host: str) -> None:
    fal.register("acme/app", echo)
    submitted = http.post("/acme/app", json={"a": 1}, headers=at(host)).json()
    url = f"http://{host}/acme/app/requests/{submitted['request_id']}"
    assert submitted["response_url"] == url
    assert submitted["status_url"] == f"{url}/status"
    assert submitted["cancel_url"] == f"{url}/cancel"
    wait_for_completed(fal)
    path = f"/acme/app/requests/{submitted['request_id']}"
    assert http.get(f"{path}/status", headers=at(host)).json()["status_url"] == f"{url}/status"
    assert http.get(path, headers=at(host)).json() == {"a": 1}


def test_job_is_reachable_in_either_url_style(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    request_id = submit(http)["request_id"]
    wait_for_completed(fal)
    path = f"/acme/app/requests/{request_id}"
    status = http.get(f"{path}/status", headers=at("queue.fal.run")).json()
    assert status["response_url"] == f"http://queue.fal.run{path}"
    status = http.get(f"/queue{path}/status").json()
    assert status["response_url"] == f"{fal.url}/queue{path}"


def test_response_urls_match_the_request_host(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http, headers=at("emulator.internal:81"))
    assert submitted["status_url"].startswith("http://emulator.internal:81/queue/acme/app/")
    for proto, host in (("https", "fal.example"), ("https, http", "fal.example,proxy.internal")):
        forwarded = {"X-Forwarded-Proto": proto, "X-Forwarded-Host": host}
        submitted = submit(http, headers=forwarded)
        assert submitted["status_url"].startswith("https://fal.example/queue/acme/app/")


@pytest.mark.parametrize("app", ["acme/app", "workflows/acme/flow", "comfy/acme/flow", "123-app"])
@pytest.mark.parametrize("tail", ["", "/deep/path", "/requests", "/status"])
def test_job_urls_omit_the_path_of_the_id(
    fal: Emulator, http: httpx.Client, app: str, tail: str
) -> None:
    fal.register(f"{app}{tail}", where)
    submitted = submit(http, f"{app}{tail}")
    normal = app.replace("123-app", "123/app")
    request_id = submitted["request_id"]
    assert submitted["response_url"] == f"{fal.url}/queue/{normal}/requests/{request_id}"
    wait_for_completed(fal, 1, f"{app}{tail}")
    output = {"endpoint": f"{normal}{tail}", "path": "/"}
    for prefix in (normal, f"{normal}{tail}", f"{app}{tail}", f"{app}/"):
        url = f"/queue/{prefix}/requests/{request_id}"
        for form in (url, f"{url}/", f"{url}/response", f"{url}/response/"):
            assert http.get(form).json() == output
        for form in (f"{url}/status", f"{url}/status/"):
            assert http.get(form).json()["status"] == "COMPLETED"
        for form in (f"{url}/status/stream", f"{url}/status/stream/"):
            assert http.get(form).text.startswith('data: {"status":"COMPLETED"')
        for form in (f"{url}/cancel", f"{url}/cancel/"):
            assert http.put(form).json() == {"status": "ALREADY_COMPLETED"}


def test_extra_slashes_are_ignored(fal: Emulator, http: httpx.Client) -> None:
    fal.register("/acme//app/", where)
    for path in ("/run/acme/app/", "/run//acme/app", "/run/acme//app"):
        assert http.post(path, json={}).json() == {"endpoint": "acme/app", "path": "/"}


def test_longest_registered_id_wins(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", lambda arguments: "app")
    fal.register("acme/app/fast", lambda arguments: "fast")
    fal.register("acme/app/fast/er", lambda arguments: "faster")
    assert http.post("/run/acme/app", json={}).json() == "app"
    assert http.post("/run/acme/app/fast", json={}).json() == "fast"
    assert http.post("/run/acme/app/fast/er", json={}).json() == "faster"
    assert http.post("/run/acme/app/fast/x", json={}).json() == {"detail": "Path /x not found"}
    assert http.post("/run/acme/app/faster", json={}).json() == {"detail": "Path /faster not found"}


def test_later_runner_replaces_earlier_one(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", lambda arguments: "first")
    assert http.post("/run/acme/app", json={}).json() == "first"
    fal.register("acme/app", lambda arguments: "second")
    assert http.post("/run/acme/app", json={}).json() == "second"
    assert fal.counters("acme/app").executions == 2


@pytest.mark.parametrize("endpoint", ["", "app", "/", "https://fal.run/acme/app", "workflows/a"])
def test_registered_id_needs_owner_and_alias(fal: Emulator, endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint id"):
        fal.register(endpoint, echo)


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("POST", "/run/acme/app", 404, {"detail": 'Application "app" not found'}),
        ("POST", "/run/acme/app/path", 404, {"detail": 'Application "app" not found'}),
        ("POST", "/queue/workflows/acme/flow", 404, {"detail": 'Application "flow" not found'}),
        ("POST", "/run/app", 404, {"detail": 'Application "app" not found'}),
        ("GET", "/", 404, {"detail": "Not Found"}),
        ("GET", "/favicon.ico", 404, {"detail": "Not Found"}),
    ],
)
def test_unknown_path_returns_404(
    http: httpx.Client, method: str, path: str, status: int, body: Any
) -> None:
    response = http.request(method, path)
    assert (response.status_code, response.json()) == (status, body)
    assert response.headers["x-fal-request-id"]


def test_proxy_requests_reach_their_target(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    del http.headers["Authorization"]

    def through_proxy(method: str, target: str, **options: Any) -> httpx.Response:
        return http.request(method, fal.proxy_url, headers={"x-fal-target-url": target}, **options)

    assert through_proxy("POST", "https://fal.run/acme/app", json={"a": 1}).json() == {"a": 1}
    submitted = through_proxy("POST", "https://queue.fal.run/acme/app", json={"b": 2}).json()
    assert submitted["status_url"].startswith("https://queue.fal.run/acme/app/requests/")
    wait_for_completed(fal)
    status = through_proxy("GET", f"{submitted['status_url']}?logs=1").json()
    assert (status["status"], status["logs"]) == ("COMPLETED", [])
    assert through_proxy("GET", submitted["response_url"]).json() == {"b": 2}


@pytest.mark.parametrize(
    "target", [None, "", "https://example.com/acme/app", "nonsense", "https://["]
)
def test_foreign_proxy_target_is_refused(
    fal: Emulator, http: httpx.Client, target: str | None
) -> None:
    headers = {} if target is None else {"x-fal-target-url": target}
    response = http.post(fal.proxy_url, json={}, headers=headers)
    assert (response.status_code, response.json()) == (400, "Invalid request")
