"""ASGI apps as runners: scope, responses, failures and lifespan."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from fal_async.emulator import Emulator
from tests.support.http import make_client, submit, wait_for_completed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import httpx
    from starlette.requests import Request


def app_of(
    endpoint: Callable[[Request], Awaitable[Response]], path: str = "/{path:path}", **options: Any
) -> Starlette:
    methods = ["GET", "POST", "PUT", "DELETE"]
    return Starlette(routes=[Route(path, endpoint, methods=methods)], **options)


async def show(request: Request) -> Response:
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "query": request.url.query,
            "body": body.decode(),
            "headers": dict(request.headers),
        }
    )


@pytest.mark.parametrize(
    ("called", "path"),
    [("acme/app", "/"), ("acme/app/image", "/image"), ("acme/app/a/b%20c", "/a/b c")],
)
def test_app_path_starts_after_its_id(
    fal: Emulator, http: httpx.Client, called: str, path: str
) -> None:
    fal.register("acme/app", app_of(show))
    shown = http.post(f"/run/{called}?a=b%2Fc", content=b"\x00abc").json()
    assert (shown["method"], shown["path"], shown["query"]) == ("POST", path, "a=b%2Fc")
    assert shown["body"] == "\x00abc"
    assert shown["headers"]["content-length"] == "4"


def test_app_receives_gateway_headers_without_key(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", app_of(show))
    response = http.post("/run/acme/app/image", json={}, headers={"X-Own": "1"})
    headers = response.json()["headers"]
    assert headers["x-fal-request-id"] == response.headers["x-fal-request-id"]
    assert headers["x-fal-endpoint"] == "acme/app/image"
    assert headers["x-own"] == "1"
    assert "authorization" not in headers


def test_app_handles_every_method_directly(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", app_of(show))
    for method in ("GET", "PUT", "DELETE"):
        assert http.request(method, "/run/acme/app").json()["method"] == method


def test_app_response_is_returned_unchanged(fal: Emulator, http: httpx.Client) -> None:
    async def respond(request: Request) -> Response:
        return PlainTextResponse(
            "nothing left",
            status_code=418,
            headers={
                "X-Own": "1",
                "X-Fal-Billable-Units": "0.25000000",
                "X-Fal-Stop-Runner": "1",
                "X-Fal-Request-Id": "its own",
            },
        )

    fal.register("acme/app", app_of(respond))
    submitted = submit(http)
    wait_for_completed(fal)
    for response in (http.post("/run/acme/app", json={}), http.get(submitted["response_url"])):
        assert (response.status_code, response.text) == (418, "nothing left")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["x-own"] == "1"
        assert response.headers["x-fal-billable-units"] == "0.25000000"
        assert "x-fal-stop-runner" not in response.headers
        assert response.headers.get_list("x-fal-request-id") != ["its own"]
    assert response.headers.get_list("x-fal-request-id") == [submitted["request_id"]]


def test_app_response_is_streamed(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()

    async def stream(request: Request) -> Response:
        async def events() -> AsyncGenerator[str]:
            yield "data: 1\n\n"
            await gate.wait()
            yield "data: 2\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    fal.register("acme/app", app_of(stream))
    with http.stream("POST", "/run/acme/app/stream", json={}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert next(lines) == "data: 1"
        gate.open()
        assert "data: 2" in list(lines)


def test_app_is_notified_of_client_disconnect(fal: Emulator) -> None:
    closed = fal.gate()

    async def stream(request: Request) -> Response:
        async def events() -> AsyncGenerator[str]:
            try:
                yield "data: 1\n\n"
                await fal.gate().wait()
            finally:
                closed.open()

        return StreamingResponse(events(), media_type="text/event-stream")

    fal.register("acme/app", app_of(stream))
    with make_client(fal) as http, http.stream("POST", "/run/acme/app/stream", json={}) as response:
        next(response.iter_lines())
    assert closed.wait_sync(10)


def test_app_exception_returns_500(fal: Emulator, http: httpx.Client) -> None:
    async def crash(request: Request) -> Response:
        raise LookupError("no such cat")

    fal.register("acme/app", app_of(crash))
    submitted = submit(http)
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).status_code == 500
    assert "no such cat" in fal.jobs[submitted["request_id"]].logs[0]["message"]


async def short(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        headers = [(b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})


async def silent(scope: Any, receive: Any, send: Any) -> None:
    return


def test_truncated_app_response_is_a_server_error(
    fal: Emulator, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    fal.register("acme/app", short)
    submitted = submit(http, headers={"X-Fal-No-Retry": "1"})
    wait_for_completed(fal)
    result = http.get(submitted["response_url"])
    assert result.status_code == 502
    assert result.json()["error_type"] == "runner_incomplete_response"
    with pytest.raises(Exception, match="peer closed connection"):
        http.post("/run/acme/app", json={})
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


def test_app_without_response_returns_500(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", silent)
    assert http.post("/run/acme/app", json={}).status_code == 500


def test_app_lifespan_spans_the_emulator() -> None:
    happened: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, str]]:
        happened.append("start")
        yield {"model": "loaded"}
        happened.append("stop")

    async def respond(request: Request) -> Response:
        return JSONResponse(request.state.model)

    with Emulator() as fal, make_client(fal) as http:
        fal.register("acme/app", app_of(respond, lifespan=lifespan))
        for _ in range(2):
            assert http.post("/run/acme/app", json={}).json() == "loaded"
        assert happened == ["start"]
    assert happened == ["start", "stop"]


def test_jobs_fail_when_app_startup_fails(fal: Emulator, http: httpx.Client) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        raise RuntimeError("no weights")
        yield

    fal.register("acme/app", app_of(show, lifespan=lifespan))
    submitted = submit(http)
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).status_code == 500
    assert "no weights" in fal.jobs[submitted["request_id"]].logs[0]["message"]


def test_app_logs_belong_to_their_job(fal: Emulator, http: httpx.Client) -> None:
    async def work(request: Request) -> Response:
        job = request.state.job
        job.log("step", "WARN", labels={"step": 1})
        return JSONResponse({"id": job.request_id})

    fal.register("acme/app", app_of(work))
    submitted = submit(http)
    wait_for_completed(fal)
    status = http.get(submitted["status_url"], params={"logs": "1"}).json()
    (line,) = status["logs"]
    assert (line["message"], line["level"], line["labels"]) == ("step", "WARN", {"step": 1})
    assert http.get(submitted["response_url"]).json() == {"id": submitted["request_id"]}
