"""Cancellation of jobs in the queue and in every kind of runner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fal_async.emulator import AppError
from tests.support.http import Arguments, echo, gated_echo, submit, wait_for_completed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx
    from starlette.requests import Request

    from fal_async.emulator import Emulator, Job

CANCELLED = {"detail": "Request cancelled by the client.", "error_type": "client_cancelled"}


def test_queued_job_is_removed(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", gated_echo(fal.gate()), concurrency=1)
    submit(http)
    queued = submit(http)
    response = http.put(queued["cancel_url"])
    assert (response.status_code, response.json()) == (200, {"status": "OK"})
    status = http.get(queued["status_url"])
    assert (status.status_code, status.json()["status"]) == (200, "COMPLETED")
    assert status.json()["metrics"] == {"inference_time": None}
    assert status.json()["error_type"] == "client_cancelled"
    result = http.get(queued["response_url"])
    assert (result.status_code, result.json()) == (499, CANCELLED)
    assert result.headers["x-fal-error-type"] == "client_cancelled"
    assert fal.counters("acme/app").executions == 1


def test_running_coroutine_is_cancelled(fal: Emulator, http: httpx.Client) -> None:
    cleaned_up = fal.gate()

    @fal.endpoint("acme/app")
    async def app(arguments: Arguments) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.open()

    submitted = submit(http)
    fal.wait_for(lambda: fal.counters("acme/app").executions == 1)
    response = http.put(submitted["cancel_url"])
    assert (response.status_code, response.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    wait_for_completed(fal)
    assert cleaned_up.is_open
    result = http.get(submitted["response_url"])
    assert (result.status_code, result.json()) == (499, CANCELLED)
    response = http.put(submitted["cancel_url"])
    assert (response.status_code, response.json()) == (400, {"status": "ALREADY_COMPLETED"})
    assert fal.counters("acme/app").cancelled == 1


def test_job_is_cancelled_before_its_start(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", gated_echo(fal.gate()), concurrency=1)
    for _ in range(20):
        submitted = submit(http)
        assert http.put(submitted["cancel_url"]).status_code in {200, 202}
    wait_for_completed(fal, 20)
    counters = fal.counters("acme/app")
    assert (counters.running, counters.queued, counters.cancelled) == (0, 0, 20)


def test_coroutine_may_finish_after_a_cancel(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    async def app(arguments: Arguments) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "as far as it came"
        return "never"

    submitted = submit(http)
    fal.wait_for(lambda: fal.counters("acme/app").executions == 1)
    for _ in range(2):
        assert http.put(submitted["cancel_url"]).status_code in {202, 400}
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).json() == "as far as it came"


def test_coroutine_is_cancelled_only_once(fal: Emulator, http: httpx.Client) -> None:
    cleaning_up, gate = fal.gate(), fal.gate()

    @fal.endpoint("acme/app")
    async def app(arguments: Arguments) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cleaning_up.open()
            await gate.wait()
        return "cleaned up"

    submitted = submit(http)
    fal.wait_for(lambda: fal.counters("acme/app").executions == 1)
    http.put(submitted["cancel_url"])
    assert cleaning_up.wait_sync(10)
    assert http.put(submitted["cancel_url"]).json() == {"status": "CANCELLATION_REQUESTED"}
    gate.open()
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).json() == "cleaned up"


def test_cancelled_job_is_not_retried(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments, job: Job) -> None:
        job.cancellation.wait_sync()
        raise AppError(503, "GPU error")

    submitted = submit(http)
    fal.wait_for(lambda: fal.counters("acme/app").executions == 1)
    http.put(submitted["cancel_url"])
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).status_code == 503
    assert fal.counters("acme/app").executions == 1


def test_threaded_function_is_notified(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments, job: Job) -> bool:
        return job.cancellation.wait_sync()

    submitted = submit(http)
    assert http.put(submitted["cancel_url"]).json() == {"status": "CANCELLATION_REQUESTED"}
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).json() is True


def test_running_generator_is_closed(fal: Emulator, http: httpx.Client) -> None:
    started, closed = fal.gate(), fal.gate()

    @fal.endpoint("acme/app")
    async def app(arguments: Arguments) -> AsyncGenerator[int]:
        try:
            yield 1
            started.open()
            await asyncio.Event().wait()
        finally:
            closed.open()

    submitted = submit(http)
    assert started.wait_sync(10)
    http.put(submitted["cancel_url"])
    wait_for_completed(fal)
    assert closed.is_open
    assert http.get(submitted["response_url"]).status_code == 499


def test_app_receives_cancel_at_the_job_path(fal: Emulator, http: httpx.Client) -> None:
    cancelled: dict[str, asyncio.Event] = {}

    async def generate(request: Request) -> Response:
        event = cancelled[request.headers["x-fal-request-id"]] = asyncio.Event()
        await event.wait()
        return JSONResponse({"detail": ""}, 499)

    async def cancel(request: Request) -> Response:
        cancelled[request.headers["x-fal-request-id"]].set()
        return JSONResponse({})

    routes = [
        Route("/image", generate, methods=["POST"]),
        Route("/image/cancel", cancel, methods=["POST"]),
    ]
    fal.register("acme/app", Starlette(routes=routes))
    submitted = submit(http, "acme/app/image")
    fal.wait_for(lambda: submitted["request_id"] in cancelled)
    assert http.put(submitted["cancel_url"]).status_code == 202
    wait_for_completed(fal)
    result = http.get(submitted["response_url"])
    assert (result.status_code, result.json()) == (499, {"detail": ""})
    status = http.get(submitted["status_url"]).json()
    assert (status["error"], status["error_type"]) == (
        "Invalid status code: 499",
        "client_cancelled",
    )


def test_app_without_cancel_handler_finishes(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()

    async def generate(request: Request) -> Response:
        await request.body()
        await gate.wait()
        return JSONResponse({"done": not await request.is_disconnected()})

    fal.register("acme/app", Starlette(routes=[Route("/", generate, methods=["POST"])]))
    submitted = submit(http)
    assert http.put(submitted["cancel_url"]).status_code == 202
    gate.open()
    wait_for_completed(fal)
    assert http.get(submitted["response_url"]).json() == {"done": True}


def test_cancel_of_unknown_job_returns_404(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    response = http.put("/queue/acme/app/requests/764cabcf-b745-4b3e-ae38-1200304cf45b/cancel")
    assert (response.status_code, response.json()) == (404, {"status": "NOT_FOUND"})
