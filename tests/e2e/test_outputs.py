"""Outputs: results with metadata, plain values, typed outputs and typed errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_async import (
    AccountLockedError,
    AsyncClient,
    AuthenticationError,
    ContentPolicyError,
    ErrorDetail,
    InvalidInputError,
    InvalidResponseError,
    JobCancelledError,
    NotFoundError,
    Queued,
    Result,
    RetryPolicy,
    StartTimeoutError,
    TransportError,
)
from fal_async.emulator import AppError, Emulator, Fault, Job

if TYPE_CHECKING:
    from starlette.requests import Request

ECHO = "acme/echo"


@pytest.fixture(autouse=True)
def echo(fal: Emulator) -> None:
    @fal.endpoint(ECHO)
    def echo(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments


async def test_result_is_a_dictionary_with_metadata(fal: Emulator, client: AsyncClient) -> None:
    ids: list[str] = []
    result = await client.subscribe(ECHO, {"n": 1}, on_enqueue=ids.append)

    assert result == {"n": 1}
    assert isinstance(result, Result)
    assert result.request_id == ids[0]
    assert result.billable_units == 1
    assert result.metrics["inference_time"] >= 0
    assert result.headers["content-type"] == "application/json"
    assert result.retries == 0


async def test_direct_result_names_its_request(client: AsyncClient) -> None:
    result = await client.run(ECHO, {"n": 1})

    assert result.request_id == result.headers["x-fal-request-id"]


@pytest.mark.parametrize("value", [[1, 2], "text", 7, None, True, {"a": {"b": [1]}}])
async def test_output_may_be_any_json_value(
    fal: Emulator, client: AsyncClient, value: object
) -> None:
    fal.register("acme/value", lambda arguments: value)
    direct: object = await client.run("acme/value", {})
    queued: object = await client.subscribe("acme/value", {})

    assert direct == queued == value


async def test_non_json_outputs_are_returned_unchanged(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint("acme/file")
    def file(arguments: dict[str, Any]) -> Response:
        return Response(arguments["body"], media_type=arguments["type"])

    text: object = await client.run("acme/file", {"body": "hé", "type": "text/plain"})
    picture: object = await client.run("acme/file", {"body": "\x89", "type": "image/png"})

    assert text == "hé"
    assert picture == "\x89".encode()


class Prompt(BaseModel):
    text: str = Field(alias="prompt")


class Picture(BaseModel):
    prompt: str


async def test_models_are_sent_and_returned(client: AsyncClient) -> None:
    ran = await client.run(ECHO, Prompt(prompt="a cat"), output=Picture)
    subscribed = await client.subscribe(ECHO, Prompt(prompt="a cat"), output=Picture)
    handle = await client.submit(ECHO, Prompt(prompt="a cat"))

    assert ran == subscribed == await handle.get(output=Picture) == Picture(prompt="a cat")
    assert await client.result(ECHO, handle.request_id, output=dict[str, str]) == {
        "prompt": "a cat"
    }


async def test_mismatched_output_raises_a_typed_error(client: AsyncClient) -> None:
    with pytest.raises(InvalidResponseError, match="Picture") as caught:
        await client.run(ECHO, {"no": "prompt"}, output=Picture)

    assert caught.value.request_id is not None


async def test_mismatched_job_output_names_the_job(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/list", lambda arguments: [1])
    with pytest.raises(InvalidResponseError, match="Picture") as caught:
        await client.subscribe("acme/list", {}, output=Picture)

    assert caught.value.request_id in fal.jobs


async def test_get_sends_arguments_in_the_query(fal: Emulator, client: AsyncClient) -> None:
    async def query(request: Request) -> JSONResponse:
        return JSONResponse({"query": request.url.query})

    fal.register("acme/query", Starlette(routes=[Route("/", query, methods=["GET"])]))
    result = await client.run("acme/query", {"a": "1 2", "b": "ü"}, method="GET")

    assert result == {"query": "a=1+2&b=%C3%BC"}


async def test_options_become_headers_and_query(fal: Emulator, client: AsyncClient) -> None:
    await client.submit(
        ECHO,
        {},
        path="/variant",
        hint="warm",
        priority="low",
        webhook_url="https://me.invalid/hook?a=1&b=2",
        start_timeout=30,
        tags={"team": "a b", "run": "7"},
        no_retry=True,
        store_io=False,
        max_queue_length=100,
        expires_in=3600,
        headers={"X-Custom": "1"},
    )

    (request,) = fal.requests
    wanted = {
        "x-fal-runner-hint": "warm",
        "x-fal-queue-priority": "low",
        "x-fal-request-start-timeout": "30.0",
        "x-fal-request-timeout": "30.0",
        "x-fal-tags": "team=a b,run=7",
        "x-fal-no-retry": "1",
        "x-fal-store-io": "0",
        "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds":3600}',
        "x-custom": "1",
        "content-type": "application/json",
    }
    assert wanted.items() <= request.headers.items()
    assert request.headers["user-agent"].startswith("fal_async/")
    assert request.path.endswith("/acme/echo/variant")
    assert request.query == (
        "fal_webhook=https%3A%2F%2Fme.invalid%2Fhook%3Fa%3D1%26b%3D2&fal_max_queue_length=100"
    )


async def test_validation_error_lists_every_problem(fal: Emulator, client: AsyncClient) -> None:
    detail = [
        {
            "loc": ["body", "image_url"],
            "msg": "too small",
            "type": "image_too_small",
            "url": "https://docs.fal.ai/errors#image_too_small",
            "ctx": {"min_height": 64, "min_width": 64},
            "input": "secret prompt",
        }
    ]

    @fal.endpoint("acme/strict")
    def strict(arguments: dict[str, Any]) -> dict[str, Any]:
        raise AppError(422, detail)

    for call in (client.run, client.subscribe):
        with pytest.raises(InvalidInputError) as caught:
            await call("acme/strict", {})
        assert caught.value.details == (
            ErrorDetail(
                message="too small",
                type="image_too_small",
                loc=("body", "image_url"),
                ctx={"min_height": 64, "min_width": 64},
                url="https://docs.fal.ai/errors#image_too_small",
            ),
        )
        assert caught.value.message == "image_url: too small"
        assert "secret prompt" not in str(caught.value) + repr(caught.value)


async def test_each_refusal_has_its_own_class(fal: Emulator, client: AsyncClient) -> None:
    policy = [{"loc": ["body"], "msg": "no", "type": "content_policy_violation"}]
    fal.fail(ECHO, Fault(route="run", status=422, body={"detail": policy}))
    with pytest.raises(ContentPolicyError):
        await client.run(ECHO, {})

    fal.lock()
    with pytest.raises(AccountLockedError, match="Exhausted balance"):
        await client.run(ECHO, {})
    fal.unlock()

    with pytest.raises(NotFoundError):
        await client.run("acme/nothing", {})

    with pytest.raises(AuthenticationError, match="invalid key"):
        await client.with_options(key="wrong:key").run(ECHO, {})


async def test_missed_start_deadline_is_final(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/busy", concurrency=1)
    async def busy(arguments: dict[str, Any], job: Job) -> None:
        await gate.wait()

    await client.submit("acme/busy", {})
    with pytest.raises(StartTimeoutError) as caught:
        await client.subscribe("acme/busy", {}, start_timeout=0.2)

    assert caught.value.status_code == 504
    assert not caught.value.retryable
    assert fal.count("result") == 1
    gate.open()


async def test_result_of_cancelled_job_is_a_typed_error(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/busy", concurrency=1)
    async def busy(arguments: dict[str, Any], job: Job) -> None:
        await gate.wait()

    first = await client.submit("acme/busy", {})
    second = await client.submit("acme/busy", {})
    assert isinstance(await second.status(), Queued)
    removed, requested = await second.cancel(), await first.cancel()

    assert removed.accepted
    assert requested == "CANCELLATION_REQUESTED"
    for handle in (first, second):
        with pytest.raises(JobCancelledError):
            await handle.get()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(route="result", status=503, times=2),
        Fault(route="result", drop=True, times=2),
        Fault(route="result", cut=3, times=2),
        Fault(route="result", status=429, headers={"retry-after": "0"}, times=2),
    ],
    ids=["503", "dropped", "cut", "429"],
)
async def test_result_request_is_retried(fal: Emulator, client: AsyncClient, fault: Fault) -> None:
    fal.fail(ECHO, fault)
    result = await client.subscribe(ECHO, {"n": 1})

    assert result == {"n": 1}
    assert result.retries >= 1


async def test_outage_does_not_lose_the_output(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(ECHO, Fault(route="submit", status=429, headers={"retry-after": "0"}, times=1))
    fal.fail(ECHO, Fault(route="result", drop=True, times=3))
    hasty = client.with_options(retry=RetryPolicy(attempts=2, base_delay=0))
    result = await hasty.subscribe(ECHO, {"n": 1})
    assert result == {"n": 1}
    # Of all requests of the call; the pool itself repeats the one on a connection that was reused.
    assert result.retries >= 3
    assert fal.count("result") == 4


async def test_network_failure_names_and_keeps_the_job(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(ECHO, Fault(route="result", drop=True, times=None))
    client = client.with_options(retry=RetryPolicy(result_budget=0))
    with pytest.raises(TransportError) as caught:
        await client.subscribe(ECHO, {})

    assert caught.value.request_id in fal.jobs
    assert fal.count("cancel") == 0
