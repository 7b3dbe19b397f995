"""Authentication: keys, private apps, locked accounts and browser origins."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fal_async.emulator import Emulator
from tests.support.http import echo, make_client, submit, wait_for_completed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

PROXY_PATH = "/api/fal/proxy"
TARGET = "https://fal.run/acme/app"


@pytest.mark.parametrize("url", ["/run/acme/app", "/queue/acme/app", "/run/acme/app/path"])
@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        (None, 'Cannot access application "acme/app"'),
        ("Key wrong", "invalid key credentials"),
        ("Key", "invalid key credentials"),
        ("Basic abc", "invalid key credentials"),
        ("Bearer abc", "bearer: unable to decode issuer"),
    ],
)
def test_private_app_requires_a_key(
    fal: Emulator, http: httpx.Client, url: str, authorization: str | None, detail: str
) -> None:
    fal.register("acme/app", echo)
    del http.headers["Authorization"]
    headers = {} if authorization is None else {"Authorization": authorization}
    response = http.post(url, json={}, headers=headers)
    assert (response.status_code, response.json()) == (401, {"detail": detail})
    assert response.headers["x-fal-request-id"]
    assert fal.counters("acme/app").executions == 0


@pytest.mark.parametrize("tail", ["", "/status", "/status/stream"])
def test_job_of_private_app_requires_a_key(fal: Emulator, http: httpx.Client, tail: str) -> None:
    fal.register("acme/app", echo)
    url = submit(http)["response_url"]
    wait_for_completed(fal)
    del http.headers["Authorization"]
    assert http.get(url + tail).json() == {"detail": 'Cannot access application "acme/app"'}
    assert http.put(url + "/cancel").status_code == 401


def test_unknown_app_requires_a_key(http: httpx.Client) -> None:
    del http.headers["Authorization"]
    assert http.post("/run/acme/nothing", json={}).status_code == 401
    assert http.get("/queue/acme/nothing/requests/1/status").status_code == 401


def test_public_app_rejects_an_invalid_key(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo, auth=False)
    del http.headers["Authorization"]
    submitted = submit(http)
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).status_code == 200
    response = http.post("/run/acme/app", json={}, headers={"Authorization": "Key wrong"})
    assert response.status_code == 401


def test_additional_keys_and_bearer_tokens_work(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.accept_key("second:key")
    fal.accept_bearer("token")
    for authorization in ("Key second:key", "key second:key", "Bearer token"):
        headers = {"Authorization": authorization}
        assert http.post("/run/acme/app", json={}, headers=headers).status_code == 200
    for authorization in ("Bearer second:key", "Key token"):
        headers = {"Authorization": authorization}
        assert http.post("/run/acme/app", json={}, headers=headers).status_code == 401


def test_custom_key_is_accepted() -> None:
    with Emulator(key="mine:secret") as fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        assert fal.key == "mine:secret"
        assert fal.environ == {"FAL_KEY": "mine:secret", "FAL_ASYNC_BASE_URL": fal.url}
        assert http.post("/run/acme/app", json={}).status_code == 200


def test_locked_account_can_only_read(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http)
    wait_for_completed(fal)
    fal.lock()
    for url in ("/run/acme/app", "/queue/acme/app"):
        response = http.post(url, json={})
        assert (response.status_code, response.json()) == (
            403,
            {
                "detail": "User is locked. Reason: Exhausted balance. "
                "Top up your balance at fal.ai/dashboard/billing."
            },
        )
    assert http.get(submitted["response_url"]).status_code == 200
    fal.unlock()
    assert http.post("/run/acme/app", json={}).status_code == 200


def test_balance_lasts_for_some_jobs(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.lock(after=3)
    urls = ["/run/acme/app", "/queue/acme/app", "/run/acme/none", "/run/acme/app", "/run/acme/app"]
    assert [http.post(url, json={}).status_code for url in urls] == [200, 200, 404, 200, 403]
    user = http.get("/rest/users/current").json()
    assert (user["is_locked"], "Exhausted balance" in user["lock_reason"]) == (True, True)
    fal.reset()
    assert http.post("/run/acme/app", json={}).status_code == 200


@pytest.fixture
def open_fal() -> Iterator[Emulator]:
    with Emulator(allow_origins=["https://page.example", "https://another.example"]) as emulator:
        yield emulator


@pytest.fixture
def open_http(open_fal: Emulator) -> Iterator[httpx.Client]:
    with make_client(open_fal) as client:
        yield client


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil", "", "//["]
)
@pytest.mark.parametrize("url", ["/run/acme/app", "/queue/acme/app", "/rest/tokens", PROXY_PATH])
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "GET"])
def test_foreign_origins_are_rejected(
    fal: Emulator, http: httpx.Client, origin: str, url: str, method: str
) -> None:
    fal.register("acme/app", echo, auth=False)
    response = http.request(method, url, headers={"Origin": origin, "x-fal-target-url": TARGET})
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert fal.counters("acme/app").executions == 0
    assert not fal.jobs


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "http://127.0.0.2", "https://[::1]:8443", "http://a.localhost"],
)
def test_local_origins_are_allowed(fal: Emulator, http: httpx.Client, origin: str) -> None:
    fal.register("acme/app", echo)
    response = http.post("/run/acme/app", json={"a": 1}, headers={"Origin": origin})
    assert response.json() == {"a": 1}
    assert response.headers["access-control-allow-origin"] == origin


def test_each_emulator_has_its_own_key() -> None:
    assert len({Emulator().key for _ in range(3)}) == 3
    assert Emulator(key="a:b").key == "a:b"


def test_configured_origins_are_allowed(open_fal: Emulator, open_http: httpx.Client) -> None:
    fal, http = open_fal, open_http
    fal.register("acme/app", echo)
    preflight = http.options(
        "/queue/acme/app",
        headers={
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-fal-queue-priority",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://page.example"
    assert preflight.headers["access-control-allow-credentials"] == "true"
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    allowed = preflight.headers["access-control-allow-headers"]
    assert allowed == "authorization,x-fal-queue-priority"
    response = http.post("/run/acme/app", json={}, headers={"Origin": "https://page.example"})
    assert response.headers["access-control-allow-origin"] == "https://page.example"
    assert response.headers["vary"] == "Origin"
    assert "x-fal-request-id" in response.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in http.post("/run/acme/app", json={}).headers
    assert [request.method for request in fal.requests] == ["POST", "POST"]


def test_cors_headers_are_sent_once(open_fal: Emulator, open_http: httpx.Client) -> None:
    fal, http = open_fal, open_http

    async def ok(request: Request) -> Response:
        return PlainTextResponse("ok")

    allowed = Middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)
    routes = [Route("/", ok, methods=["POST"])]
    fal.register("acme/app", Starlette(routes=routes, middleware=[allowed]))
    page, another = {"Origin": "https://page.example"}, {"Origin": "https://another.example"}
    submitted = submit(http, headers=page)
    wait_for_completed(fal)
    for response, origin in (
        (http.post("/run/acme/app", json={}, headers=page), page),
        (http.get(submitted["response_url"], headers=another), another),
    ):
        assert response.headers.get_list("access-control-allow-origin") == [origin["Origin"]]
        assert response.headers.get_list("access-control-allow-credentials") == ["true"]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("https://fal.run/acme/app", 200),
        ("http://fal.run/acme/app", 200),
        ("https://queue.fal.run/acme/app", 200),
        ("https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3", 422),
        ("https://rest.fal.ai/storage/upload/initiate", 400),
        ("https://rest.fal.ai/storage/upload/initiate?storage_type=gcs", 400),
        ("https://rest.fal.ai/storage/upload/initiate-multipart?storage_type=fal-cdn-v3", 400),
        ("https://rest.fal.ai/tokens/", 400),
        ("https://falrun.com/acme/app", 400),
        ("https://queue.falrun.com/acme/app", 400),
        ("https://fal.run", 400),
        ("https://fal.run:8443/acme/app", 400),
        ("https://fal.run.evil.example/acme/app", 400),
        ("https://evil.example/fal.run/acme/app", 400),
        ("https://user@fal.run/acme/app", 400),
        ("https://v3.fal.media/files/upload", 400),
        ("fal.run/acme/app", 400),
        ("", 400),
    ],
)
def test_proxy_forwards_to_the_official_targets(
    fal: Emulator, http: httpx.Client, target: str, status: int
) -> None:
    fal.register("acme/app", echo)
    del http.headers["Authorization"]
    response = http.post(PROXY_PATH, json={}, headers={"x-fal-target-url": target})
    assert response.status_code == status
    if status == 400:
        assert response.json() == "Invalid request"


def test_proxied_upload_stays_local(fal: Emulator, http: httpx.Client) -> None:
    target = "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3"
    body = {"content_type": "text/plain", "file_name": "a.txt"}
    urls = http.post(PROXY_PATH, json=body, headers={"x-fal-target-url": target}).json()
    assert urls["upload_url"].startswith(f"{fal.url}/cdn/")
    headers = {"content-type": "text/plain"}
    assert http.put(urls["upload_url"], content=b"a", headers=headers).status_code == 200
    assert http.get(urls["file_url"]).content == b"a"


@pytest.mark.parametrize("url", ["/run/acme/app", "/run/acme/public", "/cdn/files/upload", "/none"])
def test_large_body_without_key_is_rejected(fal: Emulator, http: httpx.Client, url: str) -> None:
    fal.register("acme/app", echo)
    fal.register("acme/public", echo, auth=False)
    http.headers["Authorization"] = "Key wrong"
    with contextlib.suppress(httpx.WriteError):  # the server closes the connection
        response = http.post(url, content=bytes(32 * 1024 * 1024 + 1))
        assert response.status_code == 413
    assert http.post("/run/acme/public", json={}, headers={"Authorization": ""}).status_code != 413


def test_large_body_with_key_is_accepted(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", lambda arguments: len(arguments["a"]))
    body = b'{"a": "' + b"x" * 33 * 1024 * 1024 + b'"}'
    assert (
        http.post(
            "/run/acme/app", content=body, headers={"content-type": "application/json"}
        ).json()
        == 33 * 1024 * 1024
    )
