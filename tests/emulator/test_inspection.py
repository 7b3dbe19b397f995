"""Inspection: recorded requests, jobs, counters and waiting for them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from fal_async.emulator import Emulator, Gate, Job, Socket
from tests.support.http import echo, gated_echo, make_client, submit, wait_for_completed
from tests.support.websocket_client import connect_websocket

if TYPE_CHECKING:
    from tests.support.http import Arguments


def test_requests_are_recorded_in_order(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    submitted = submit(http, "acme/app", params={"fal_webhook": "https://a.invalid"}, json={"a": 1})
    http.get("/nowhere")
    sent, unknown = fal.requests
    assert (sent.route, sent.endpoint, sent.method) == ("submit", "acme/app", "POST")
    assert (sent.host, sent.path, sent.status) == ("queue", "/queue/acme/app", 200)
    assert sent.query == "fal_webhook=https%3A%2F%2Fa.invalid"
    assert sent.headers["authorization"] == f"Key {fal.key}"
    assert sent.arguments == {"a": 1}
    assert sent.request_id == submitted["request_id"]
    assert (unknown.route, unknown.endpoint, unknown.host, unknown.status) == ("other", "", "", 404)
    assert unknown.arguments is None


def test_long_recorded_bodies_are_shortened(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    assert http.post("/run/acme/app", json={"a": "x" * 100_000}).status_code == 200
    assert len(fal.requests[0].body) == 65_536


def test_requests_are_counted_by_route(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    fal.register("acme/other", echo)
    submitted = submit(http)
    wait_for_completed(fal)
    for _ in range(2):
        http.get(submitted["status_url"])
    http.get(submitted["response_url"])
    http.post("/run/acme/other", json={})
    assert fal.counters("acme/app").requests == {"submit": 1, "status": 2, "result": 1}
    assert fal.counters("acme/other").requests == {"run": 1}
    assert (fal.count("status"), fal.count("run"), fal.count("cancel")) == (2, 1, 0)


def test_job_requests_count_for_their_endpoint(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app/fast", echo)
    submitted = submit(http, "acme/app/fast")
    http.get(submitted["status_url"])
    assert fal.counters("acme/app/fast").requests == {"submit": 1, "status": 1}
    assert [request.endpoint for request in fal.requests] == ["acme/app/fast", "acme/app"]


def test_unknown_counter_is_an_error(fal: Emulator) -> None:
    with pytest.raises(KeyError):
        fal.counters("acme/app")


def test_jobs_are_recorded_with_their_outcome(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate))
    request_id = submit(http, json={"a": 1})["request_id"]
    fal.wait_for(lambda: fal.jobs[request_id].executions == 1)
    job = fal.jobs[request_id]
    assert (job.response, job.executions, repr(job)) == (
        None,
        1,
        f"<Job {request_id} of acme/app: IN_PROGRESS>",
    )
    gate.open()
    fal.wait_for(lambda: job.status == "COMPLETED")
    assert job.response is not None
    assert (job.response.status, job.response.json()) == (200, {"a": 1})


def test_connections_are_counted(fal: Emulator) -> None:
    assert fal.connections == 0
    with make_client(fal) as http:
        http.get("/")
        assert fal.connections == 1
    fal.wait_for(lambda: fal.connections == 0)


async def repeat(socket: Socket) -> None:
    async for message in socket:
        await socket.send(message)


def test_reset_cancels_jobs_and_keeps_endpoints(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate), concurrency=1)
    running = submit(http)["request_id"]
    waiting_job = submit(http)["request_id"]
    http.put(submit(http)["cancel_url"])
    jobs = fal.jobs
    fal.lock()
    fal.reset()
    assert jobs[running].cancelled
    assert jobs[waiting_job].cancelled
    counters = fal.counters("acme/app")
    assert (counters.executions, counters.completed, counters.running) == (0, 0, 0)
    assert (fal.requests, fal.count("submit"), dict(fal.jobs)) == ([], 0, {})
    gate.open()
    assert submit(http)["queue_position"] == 0
    wait_for_completed(fal)
    assert fal.counters("acme/app").executions == 1


def test_reset_frees_slots_of_blocking_runners(fal: Emulator, http: httpx.Client) -> None:
    stuck = threading.Event()

    def block(arguments: dict[str, Any], job: Job) -> None:
        if arguments:
            stuck.wait(10)

    fal.register("acme/app", block, concurrency=1)
    request_id = submit(http, json={"block": True})["request_id"]
    job = fal.jobs[request_id]
    fal.wait_for(lambda: fal.counters("acme/app").running == 1)
    fal.reset()
    assert job.cancelled
    submit(http)
    wait_for_completed(fal)
    stuck.set()


def test_reset_ends_direct_runs_and_sessions(fal: Emulator) -> None:
    fal.register("acme/app", gated_echo(fal.gate()))
    fal.websocket("acme/socket")(repeat)
    with (
        ThreadPoolExecutor() as threads,
        make_client(fal) as http,
        connect_websocket(fal, "run/acme/socket") as socket,
    ):
        call = threads.submit(http.post, "/run/acme/app", json={})
        fal.wait_for(lambda: fal.counters("acme/app").running == 1)
        fal.reset()
        with pytest.raises(httpx.RemoteProtocolError):
            call.result(10)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=10)
    assert fal.counters("acme/app").running == fal.counters("acme/socket").running == 0


def test_reset_within_async_runner_is_an_error(
    fal: Emulator, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def reset(arguments: dict[str, Any]) -> None:
        fal.reset()

    fal.register("acme/app", reset)
    assert http.post("/run/acme/app", json={}).status_code == 500
    assert "an async runner cannot wait for the emulator" in caplog.text


def test_reset_before_start_is_allowed() -> None:
    fal = Emulator()
    fal.lock()
    fal.reset()
    with fal, make_client(fal) as http:
        fal.register("acme/app", echo)
        assert http.post("/run/acme/app", json={}).status_code == 200


@pytest.mark.parametrize("route", ["run", "queue"])
def test_runner_exception_is_logged(
    fal: Emulator, http: httpx.Client, caplog: pytest.LogCaptureFixture, route: str
) -> None:
    def broken(arguments: dict[str, Any]) -> object:
        return arguments["typo"]

    fal.register("acme/app", broken)
    http.post(f"/{route}/acme/app", json={})
    wait_for_completed(fal) if route == "queue" else None
    (record,) = [record for record in caplog.records if record.name == "fal_async.emulator"]
    assert record.levelname == "ERROR"
    assert "acme/app" in record.getMessage()
    assert record.exc_info
    assert isinstance(record.exc_info[1], KeyError)


def test_wait_timeout_is_an_error(fal: Emulator) -> None:
    with pytest.raises(TimeoutError, match=r"after 0\.01 seconds"):
        fal.wait_for(lambda: False, timeout=0.01)


async def test_async_wait_works_in_any_event_loop(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    fal.register("acme/app", gated_echo(gate), concurrency=1)
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            await anyio.to_thread.run_sync(lambda: [submit(http) for _ in range(2)])

        tasks.start_soon(call)
        await fal.wait_for_counters("acme/app", executions=1, queued=1)
    gate.open()
    await fal.wait_for_async(lambda: fal.counters("acme/app").completed == 2)


async def test_async_wait_timeout_is_an_error(fal: Emulator) -> None:
    fal.register("acme/app", echo)
    with pytest.raises(TimeoutError):
        await fal.wait_for_counters("acme/app", timeout=0.01, executions=1)


async def test_cancelled_wait_leaves_no_thread(fal: Emulator) -> None:
    evaluated = threading.Event()

    def never() -> bool:
        evaluated.set()
        return False

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fal.wait_for_async, never, None)
        await anyio.to_thread.run_sync(evaluated.wait)
        tasks.cancel_scope.cancel()
    while fal._platform.recorder._waiters:
        await anyio.lowlevel.checkpoint()


async def test_gate_wait_works_in_any_event_loop(fal: Emulator) -> None:
    gate = fal.gate()
    passed = anyio.Event()

    async def wait() -> None:
        await gate.wait()
        passed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        threading.Thread(target=gate.open).start()
        await passed.wait()
    await gate.wait()
    assert gate.is_open


async def test_gate_wait_can_be_cancelled() -> None:
    gate = Gate()
    with anyio.move_on_after(0.01) as scope:
        await gate.wait()
    assert scope.cancelled_caught
    assert gate._callbacks == []


def test_gate_wait_supports_a_timeout() -> None:
    gate = Gate()
    assert not gate.wait_sync(0.01)
    assert gate._callbacks == []
    gate.open()
    assert gate.wait_sync(0.01)


def test_thread_logs_wake_waiters(fal: Emulator, http: httpx.Client) -> None:
    gate = fal.gate()
    jobs: list[Job] = []

    @fal.endpoint("acme/app")
    def app(arguments: Arguments, job: Job) -> None:
        jobs.append(job)
        job.log("hello")
        gate.wait_sync()

    submit(http)
    fal.wait_for(lambda: bool(jobs) and bool(jobs[0].logs))


def test_predicate_may_call_the_emulator(fal: Emulator, http: httpx.Client) -> None:
    fal.register("acme/app", echo)
    url = submit(http)["status_url"]
    fal.wait_for(lambda: http.get(url).json()["status"] == "COMPLETED")
