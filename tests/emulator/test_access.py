"""Who may call, and from where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fal_async.emulator import Emulator
from tests.emulator.calls import client_of, completed, echo, submit

if TYPE_CHECKING:
    import httpx
    from starlette.requests import Request


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
def test_a_private_app_wants_the_key(
    fal: Emulator, http: httpx.Client, url: str, authorization: str | None, detail: str
) -> None:
    fal.register("acme/app", echo)
    del http.headers["Authorization"]
    headers = {} if authorization is None else {"Authorization": authorization}
    reply = http.post(url, json={}, headers=headers)
    assert (reply.status_code, reply.json()) == (401, {"detail": detail})
    assert reply.headers["x-fal-request-id"]
    assert fal.counters("acme/app").executions == 0


@pytest.mark.parametrize("tail", ["", "/status", "/status/stream"])
def test_a_job_of_a_private_app_is_private(fal: Emulator, http: httpx.Client, tail: str) -> None:
    fal.register("acme/app", echo)
    url = submit(http)["response_url"]
    completed(fal)
    del http.headers["Authorization"]
    assert http.get(url + tail).json() == {"detail": 'Cannot access application "acme/app"'}
    assert http.put(url + "/cancel").status_code == 401


def test_an_unknown_app_is_private(http: httpx.Client) -> None:
    del http.headers["Authorization"]
    assert http.post("/run/acme/nothing", json={}).status_code == 401
    assert http.get("/queue/acme/nothing/requests/1/status").status_code == 401


def test_a_public_app_needs_no_key_but_a_wrong_one_is_wrong(
    fal: Emulator, http: httpx.Client
) -> None:
    fal.register("acme/app", echo, auth=False)
    del http.headers["Authorization"]
    submitted = submit(http)
    completed(fal)
    assert http.get(submitted["response_url"]).status_code == 200
    reply = http.post("/run/acme/app", json={}, headers={"Authorization": "Key wrong"})
    assert reply.status_code == 401


def test_more_keys_and_bearer_tokens_can_be_accepted(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.accept_key("second:key")
    fal.accept_bearer("token")
    for authorization in ("Key second:key", "key second:key", "Bearer token"):
        headers = {"Authorization": authorization}
        assert http.post("/run/acme/app", json={}, headers=headers).status_code == 200
    for authorization in ("Bearer second:key", "Key token"):
        headers = {"Authorization": authorization}
        assert http.post("/run/acme/app", json={}, headers=headers).status_code == 401


def test_a_key_can_be_chosen() -> None:
    with Emulator(key="mine:secret") as fal, client_of(fal) as http:
        fal.register("acme/app", echo)
        assert fal.key == "mine:secret"
        assert fal.environ == {"FAL_KEY": "mine:secret", "FAL_ASYNC_BASE_URL": fal.url}
        assert http.post("/run/acme/app", json={}).status_code == 200


def test_a_locked_account_starts_nothing_and_reads_everything(
    fal: Emulator, http: httpx.Client
) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http)
    completed(fal)
    fal.lock()
    for url in ("/run/acme/app", "/queue/acme/app"):
        reply = http.post(url, json={})
        assert (reply.status_code, reply.json()) == (
            403,
            {
                "detail": "User is locked. Reason: Exhausted balance. "
                "Top up your balance at fal.ai/dashboard/billing."
            },
        )
    assert http.get(submitted["response_url"]).status_code == 200
    fal.unlock()
    assert http.post("/run/acme/app", json={}).status_code == 200


def test_pages_of_any_origin_may_call(fal: Emulator, http: httpx.Client) -> None:
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
    reply = http.post("/run/acme/app", json={}, headers={"Origin": "https://page.example"})
    assert reply.headers["access-control-allow-origin"] == "https://page.example"
    assert reply.headers["vary"] == "Origin"
    assert "x-fal-request-id" in reply.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in http.post("/run/acme/app", json={}).headers
    assert [request.method for request in fal.requests] == ["POST", "POST"]


def test_a_page_reads_one_answer_to_its_origin_whatever_the_app_says(
    fal: Emulator, http: httpx.Client
) -> None:
    async def ok(request: Request) -> Response:
        return PlainTextResponse("ok")

    allowed = Middleware(CORSMiddleware, allow_origins=["*"], allow_credentials=True)
    routes = [Route("/", ok, methods=["POST"])]
    fal.register("acme/app", Starlette(routes=routes, middleware=[allowed]))
    page, another = {"Origin": "https://page.example"}, {"Origin": "https://another.example"}
    submitted = submit(http, headers=page)
    completed(fal)
    for reply, origin in (
        (http.post("/run/acme/app", json={}, headers=page), page),
        (http.get(submitted["response_url"], headers=another), another),
    ):
        assert reply.headers.get_list("access-control-allow-origin") == [origin["Origin"]]
        assert reply.headers.get_list("access-control-allow-credentials") == ["true"]
