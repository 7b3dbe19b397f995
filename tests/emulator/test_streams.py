"""Event streams of generators."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import BaseModel

from fal_async.emulator import AppError, Emulator, Job
from tests.support.http import Arguments, count, make_client, submit, wait_for_completed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


def count_slowly(arguments: Arguments) -> Generator[Arguments]:
    for step in range(arguments["steps"]):
        yield {"step": step}


@pytest.mark.parametrize("runner", [count, count_slowly])
@pytest.mark.parametrize("path", ["", "/stream"])
def test_generator_items_become_events(
    fal: Emulator, http: httpx.Client, runner: Any, path: str
) -> None:
    fal.register("acme/app", runner)
    response = http.post(f"/run/acme/app{path}", json={"steps": 2})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.headers["x-fal-request-id"]
    assert response.text == 'data: {"step":0}\n\ndata: {"step":1}\n\n'


def test_stream_may_be_empty(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", count)
    response = http.post("/run/acme/app/stream", json={"steps": 0})
    assert (response.status_code, response.text) == (200, "")


class Progress(BaseModel):
    percent: int


def test_models_text_and_custom_frames_are_sent(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    def app(arguments: Arguments) -> Generator[object]:
        yield Progress(percent=5)
        yield "text"
        yield b": a comment\n\nevent: done\ndata: [DONE]\n\n"

    response = http.post("/run/acme/app/stream", json={})
    assert response.text == (
        'data: {"percent":5}\n\ndata: "text"\n\n: a comment\n\nevent: done\ndata: [DONE]\n\n'
    )


def test_events_are_sent_immediately(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/app")
    async def app(arguments: Arguments) -> AsyncGenerator[int]:
        yield 1
        await gate.wait()
        yield 2

    with http.stream("POST", "/run/acme/app/stream", json={}) as response:
        lines = response.iter_lines()
        assert next(lines) == "data: 1"
        gate.open()
        assert [line for line in lines if line] == ["data: 2"]


def test_error_before_first_event_is_a_response(fal: Emulator, http: httpx.Client) -> None:
    @fal.endpoint("acme/app")
    async def app(arguments: Arguments) -> AsyncGenerator[int]:
        if arguments:
            yield 1
        raise AppError(422, "no prompt")

    response = http.post("/run/acme/app/stream", json={})
    assert (response.status_code, response.json()) == (422, {"detail": "no prompt"})
    assert response.headers["content-type"] == "application/json"


def test_crash_ends_the_stream_cleanly(fal: Emulator, http: httpx.Client) -> None:
    jobs: list[Job] = []

    @fal.endpoint("acme/app")
    def app(arguments: Arguments, job: Job) -> Generator[int]:
        jobs.append(job)
        yield 1
        raise RuntimeError("out of memory")

    assert http.post("/run/acme/app/stream", json={}).text == "data: 1\n\n"
    assert "out of memory" in jobs[0].logs[0]["message"]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_disconnect_closes_the_generator(fal: Emulator, kind: str) -> None:
    closed = fal.gate()
    never = fal.gate()

    @fal.endpoint("acme/async")
    async def stream(arguments: Arguments) -> AsyncGenerator[int]:
        try:
            yield 1
            await never.wait()
        finally:
            closed.open()

    @fal.endpoint("acme/sync")
    def blocking(arguments: Arguments, job: Job) -> Generator[int]:
        try:
            yield 1
            job.cancellation.wait_sync()
            yield 2
        finally:
            closed.open()

    with (
        make_client(fal) as http,
        http.stream("POST", f"/run/acme/{kind}/stream", json={}) as response,
    ):
        assert next(response.iter_lines()) == "data: 1"
    assert closed.wait_sync(10)
    fal.wait_for(lambda: fal.counters(f"acme/{kind}").running == 0)


def test_early_disconnect_closes_the_generator(fal: Emulator, http: httpx.Client) -> None:
    closed = fal.gate()
    never = fal.gate()

    @fal.endpoint("acme/app")
    async def stream(arguments: Arguments) -> AsyncGenerator[int]:
        try:
            await never.wait()
            yield 1
        finally:
            closed.open()

    with pytest.raises(httpx.ReadTimeout):
        http.post("/run/acme/app/stream", json={}, timeout=0.05)
    assert closed.wait_sync(10)


def test_queue_stores_the_stream_as_result(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", count)
    submitted = submit(http, json={"steps": 2})
    wait_for_completed(fal)
    result = http.get(submitted["response_url"])
    assert result.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert result.text == 'data: {"step":0}\n\ndata: {"step":1}\n\n'


def test_streams_and_runs_are_distinguished(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", count)
    http.post("/run/acme/app/stream", json={"steps": 1})
    http.post("/run/acme/app", json={"steps": 1}, headers={"Accept": "text/event-stream"})
    http.post("/run/acme/app", json={"steps": 1})
    assert [request.route for request in fal.requests] == ["stream", "stream", "run"]


def test_idle_stream_sends_heartbeats(fal: Emulator, http: httpx.Client) -> None:
    first, second = fal.gate(), fal.gate()

    @fal.endpoint("acme/app", heartbeat=0.01)
    async def app(arguments: Arguments) -> AsyncGenerator[int]:
        await first.wait()
        yield 1
        await second.wait()

    with http.stream("POST", "/run/acme/app/stream", json={}) as response:
        lines = (line for line in response.iter_lines() if line)
        assert next(lines) == ": heartbeat"
        first.open()
        while (line := next(lines)) != "data: 1":
            assert line == ": heartbeat"
        assert next(lines) == ": heartbeat"
        second.open()
        assert set(lines) <= {": heartbeat"}


def test_heartbeats_end_with_their_stream(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", count, heartbeat=3600)
    assert http.post("/run/acme/app", json={"steps": 2}).status_code == 200
    server = fal._server
    assert server is not None
    fal.wait_for(lambda: len(asyncio.all_tasks(server._loop)) == 1)  # the server's own
