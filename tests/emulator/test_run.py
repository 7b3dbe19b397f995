"""Direct runs: inputs, outputs, errors and limits of functions."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, Field
from starlette.responses import PlainTextResponse, Response

from fal_async.emulator import AppError, Emulator, Job
from tests.support.http import Arguments, echo, gated_echo, make_client


class Prompt(BaseModel):
    text: str
    steps: int = Field(default=20, ge=1)


class Picture(BaseModel):
    url: str


def run(http: httpx.Client, endpoint: str = "acme/app", **options: Any) -> httpx.Response:
    return http.post(f"/run/{endpoint}", **({"json": {}} | options))


def test_run_returns_output_and_platform_headers(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    response = run(http, json={"a": [1, None, "é"]})
    assert (response.status_code, response.json()) == (200, {"a": [1, None, "é"]})
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-fal-billable-units"] == "1"
    assert response.headers["x-fal-request-id"]
    assert run(http).headers["x-fal-served-from"] == response.headers["x-fal-served-from"]


@pytest.mark.parametrize(
    ("output", "content_type", "body"),
    [
        ({"a": 1}, "application/json", b'{"a":1}'),
        ([1, 2], "application/json", b"[1,2]"),
        ("text", "application/json", b'"text"'),
        (3.5, "application/json", b"3.5"),
        (None, "application/json", b"null"),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        (Picture(url="u"), "application/json", b'{"url":"u"}'),
        ({"images": [Picture(url="u")]}, "application/json", b'{"images":[{"url":"u"}]}'),
        (PlainTextResponse("plain"), "text/plain; charset=utf-8", b"plain"),
    ],
)
def test_output_may_be_any_json_value(
    fal: Emulator, http: httpx.Client, output: object, content_type: str, body: bytes
) -> None:
    fal.register("acme/app", lambda arguments: output)
    response = run(http)
    assert (response.status_code, response.headers["content-type"]) == (200, content_type)
    assert response.content == body


def test_output_may_be_an_empty_response(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", lambda arguments: Response(status_code=204))
    response = run(http)
    assert (response.status_code, response.content) == (204, b"")


def test_unserializable_output_is_a_crash(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", lambda arguments: {"a": object()})
    response = run(http)
    assert (response.status_code, response.json()) == (500, {"detail": "Internal Server Error"})


class Model:
    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, arguments: Arguments, job: Job) -> Arguments:
        return {"model": self.name, "path": job.path}


async def scaled(factor: int, arguments: Arguments) -> Arguments:
    return {"size": factor * arguments["size"]}


def test_any_callable_may_be_a_runner(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/object", Model("m"))
    fal.register("acme/method", Model("n").__call__)
    fal.register("acme/partial", functools.partial(scaled, 2))
    fal.register("acme/nothing", lambda: "no arguments")
    assert run(http, "acme/object").json() == {"model": "m", "path": "/"}
    assert run(http, "acme/method").json() == {"model": "n", "path": "/"}
    assert run(http, "acme/partial", json={"size": 4}).json() == {"size": 8}
    assert run(http, "acme/nothing").json() == "no arguments"


def test_coroutines_run_in_the_emulator_loop(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/sync")
    def sync(arguments: Arguments) -> str:
        return threading.current_thread().name

    @fal.endpoint("acme/async")
    async def coroutine(arguments: Arguments) -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    assert run(http, "acme/sync").json() == "fal-runner"
    assert run(http, "acme/async").json() == "fal-emulator"


def test_blocking_functions_run_concurrently(fal: Emulator) -> None:
    meeting = threading.Barrier(3)

    @fal.endpoint("acme/app")
    def app(arguments: Arguments) -> int:
        return meeting.wait(timeout=10)

    results: list[int] = []
    with make_client(fal) as http:

        def call() -> None:
            results.append(run(http).json())

        threads = [threading.Thread(target=call) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == [0, 1, 2]


def test_annotated_model_validates_arguments(fal: Emulator, http: httpx.Client) -> None:
    class Local(BaseModel):
        size: int

    @fal.endpoint("acme/app")
    def app(prompt: Prompt) -> str:
        return f"{prompt.text} in {prompt.steps}"

    @fal.endpoint("acme/local")
    def local(arguments: Local) -> int:
        return arguments.size

    assert run(http, json={"text": "cat"}).json() == "cat in 20"
    assert run(http, "acme/local", json={"size": "7"}).json() == 7


def test_invalid_arguments_return_422(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(prompt: Prompt) -> None: ...

    response = run(http, json={"steps": 0})
    assert response.status_code == 422
    assert response.headers["x-fal-billable-units"] == "0"
    assert response.json() == {
        "detail": [
            {
                "type": "missing",
                "loc": ["body", "text"],
                "msg": "Field required",
                "input": {"steps": 0},
            },
            {
                "type": "greater_than_equal",
                "loc": ["body", "steps"],
                "msg": "Input should be greater than or equal to 1",
                "input": 0,
                "ctx": {"ge": 1},
            },
        ]
    }


@pytest.mark.parametrize(
    ("content", "content_type", "status", "problem"),
    [
        (b"{oops", "application/json", 422, ["body", 1]),
        (b'{"text": "\xff"}', "application/json", 400, None),
        (b'{"text": "cat"}', "text/plain", 422, ["body"]),
        (b"\xff\xfe", "application/octet-stream", 422, ["body"]),
        (b"", "application/json", 422, ["body"]),
        (b"[]", "application/json", 422, ["body"]),
        (b"null", "application/json", 422, ["body"]),
        (b"[" * 100_000 + b"]" * 100_000, "application/json", 400, None),
        (b'{"text": NaN}', "application/json", 422, ["body", "text"]),
    ],
)
def test_non_object_body_is_rejected(
    fal: Emulator,
    http: httpx.Client,
    content: bytes,
    content_type: str,
    status: int,
    problem: list[Any] | None,
) -> None:
    @fal.endpoint("acme/app")
    def app(prompt: Prompt) -> None: ...

    response = http.post("/run/acme/app", content=content, headers={"Content-Type": content_type})
    assert response.status_code == status
    detail = response.json()["detail"]
    if problem is None:
        assert detail == "There was an error parsing the body"
    else:
        assert [entry["loc"] for entry in detail] == [problem]


def test_plain_function_accepts_any_json(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    assert run(http, json=[1]).json() == [1]
    assert http.post("/run/acme/app").json() == {}


def test_function_accepts_post_at_its_own_path(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    response = run(http, "acme/app/deeper/down")
    assert (response.status_code, response.json()) == (
        404,
        {"detail": "Path /deeper/down not found"},
    )
    assert response.headers["x-fal-billable-units"] == "0"
    response = http.get("/run/acme/app")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


def test_runner_may_return_a_custom_error(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments) -> None:
        raise AppError(418, {"any": "json"}, headers={"X-Teapot": "yes"})

    response = run(http)
    assert (response.status_code, response.json()) == (418, {"detail": {"any": "json"}})
    assert response.headers["x-teapot"] == "yes"
    assert "x-fal-billable-units" not in response.headers


def test_temporary_failure_is_marked_retryable(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments) -> None:
        raise AppError(503, "GPU error")

    response = run(http)
    assert (response.status_code, response.headers["x-fal-needs-retry"]) == (503, "1")
    assert fal.counters("acme/app").executions == 1


def test_self_cancelled_coroutine_is_a_crash(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    async def app(arguments: Arguments) -> None:
        raise asyncio.CancelledError

    assert run(http).status_code == 500


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_system_exit_of_app_is_a_crash(
    fal: Emulator, http: httpx.Client, kind: str, error: type[BaseException]
) -> None:
    def function(arguments: Arguments) -> None:
        raise error

    async def coroutine(arguments: Arguments) -> None:
        raise error

    fal.register("acme/app", function if kind == "function" else coroutine)
    submitted = http.post("/queue/acme/app", json={}).json()
    fal.wait_for(lambda: fal.counters("acme/app").completed == 1)
    for response in (run(http), http.get(submitted["response_url"])):
        assert (response.status_code, response.json()) == (500, {"detail": "Internal Server Error"})
    assert error.__name__ in fal.jobs[submitted["request_id"]].logs[0]["message"]


def test_run_past_its_timeout_returns_504(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", gated_echo(fal.gate()), timeout=0.01)
    response = run(http)
    assert response.status_code == 504
    assert response.json() == {"detail": "Request timed out", "error_type": "request_timeout"}
    assert "x-fal-request-timeout-type" not in response.headers


def test_runner_reports_billable_units(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments, job: Job) -> None:
        job.billable_units = arguments["units"]

    assert run(http, json={"units": 42}).headers["x-fal-billable-units"] == "42"
    assert run(http, json={"units": 1.5}).headers["x-fal-billable-units"] == "1.50000000"


@pytest.mark.parametrize("whose", ["endpoint", "account"])
def test_run_over_the_limit_is_rejected(whose: str) -> None:
    with Emulator(concurrency=1 if whose == "account" else None) as fal, make_client(fal) as http:
        gate = fal.gate()
        fal.register("acme/app", gated_echo(gate), concurrency=1 if whose == "endpoint" else None)
        http.post("/queue/acme/app", json={}).raise_for_status()
        response = run(http)
        assert response.status_code == 429
        assert response.headers["x-fal-needs-retry"] == "1"
        assert response.json() == {
            "detail": "Reached concurrent requests limit of 1",
            "type": "concurrent_requests_limit",
            "data": {"limit": 1},
        }
        gate.open()
        fal.wait_for(lambda: fal.counters("acme/app").completed == 1)
        assert run(http).status_code == 200


def test_direct_run_counts_toward_concurrency(fal: Emulator) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate), concurrency=1)
    with make_client(fal) as http:
        thread = threading.Thread(target=run, args=(http,))
        thread.start()
        counters = fal.counters("acme/app")
        fal.wait_for(lambda: counters.running == 1)
        http.post("/queue/acme/app", json={}).raise_for_status()
        assert (counters.queued, counters.executions) == (1, 1)
        gate.open()
        fal.wait_for(lambda: counters.completed == 1)
        thread.join()


def test_client_disconnect_does_not_stop_the_run(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    jobs: list[Job] = []

    @fal.endpoint("acme/app")
    async def app(arguments: Arguments, job: Job) -> str:
        jobs.append(job)
        await job.cancellation.wait()
        await gate.wait()
        jobs.append(job)
        return "finished all the same"

    with pytest.raises(httpx.ReadTimeout):
        run(http, timeout=0.05)
    fal.wait_for(lambda: jobs[0].cancelled)
    gate.open()
    fal.wait_for(lambda: fal.counters("acme/app").running == 0)
    assert len(jobs) == 2
