"""Events of calls: their order, their contents, and their sums at the end."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import fal_async
from fal_async import (
    AsyncClient,
    ClientClosedError,
    FalClientTimeoutError,
    InProgress,
    InvalidInputError,
    Limits,
    Queued,
    hooks,
)
from fal_async.emulator import AppError, Emulator, Fault
from tests.support.events import EventRecorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

    from fal_async.emulator import Gate

ECHO = "acme/echo"
SLOW = "acme/slow"
STREAM = "acme/stream"


@pytest.fixture
def events() -> EventRecorder:
    return EventRecorder()


@pytest.fixture
def gate(fal: Emulator) -> Gate:
    """The gate that holds the slow app."""
    gate = fal.gate()

    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    async def stream(arguments: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for step in range(arguments["steps"]):
            yield {"step": step}

    fal.register(ECHO, lambda arguments: arguments)
    fal.register(SLOW, slow)
    fal.register(STREAM, stream)
    return gate


@pytest.fixture
async def observed(fal: Emulator, gate: Gate, events: EventRecorder) -> AsyncIterator[AsyncClient]:
    """A client with a hook."""
    limits = Limits(held=1)
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=limits, hooks=events) as client:
        yield client


async def call(method: Callable[..., Awaitable[object]], application: str) -> None:
    await method(application, {})


async def test_run_reports_its_steps(observed: AsyncClient, events: EventRecorder) -> None:
    result = await observed.run(ECHO, {"prompt": "a cat"})
    assert events.names == ["CallStarted", "AttemptStarted", "ResponseStarted", "CallEnded"]
    call = events[0].call
    assert (call.name, call.application) == ("run", ECHO)
    assert all(event.call is call for event in events)
    attempt = events.one(hooks.AttemptStarted)
    assert (attempt.operation, attempt.attempt, attempt.method) == ("run", 1, "POST")
    assert (attempt.host, attempt.port is None) == ("127.0.0.1", False)
    response = events.one(hooks.ResponseStarted)
    assert (response.status_code, response.request_id) == (200, result.request_id)
    ended = events.one(hooks.CallEnded)
    assert (ended.outcome, ended.error, ended.attempts, ended.retries) == ("succeeded", None, 1, 0)
    assert ended.request_id == result.request_id
    assert ended.bytes_sent == len('{"prompt":"a cat"}') == ended.bytes_received
    assert ended.seconds >= response.seconds
    assert ended.seconds_in_slot == 0


@pytest.mark.parametrize(("header", "units"), [("1.5", 1.5), ("nan", None), ("1e400", None)])
async def test_units_are_those_of_result(
    observed: AsyncClient, events: EventRecorder, fal: Emulator, header: str, units: float | None
) -> None:
    async def respond(request: Request) -> JSONResponse:
        return JSONResponse({}, headers={"x-fal-billable-units": header})

    fal.register("acme/priced", Starlette(routes=[Route("/", respond, methods=["POST"])]))
    result = await observed.run("acme/priced", {})
    assert result.billable_units == events.one(hooks.CallEnded).billable_units == units


async def test_subscribe_is_one_call(
    observed: AsyncClient, events: EventRecorder, gate: Gate, fal: Emulator
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, observed.subscribe, SLOW)
        await events.until(hooks.StatusChanged, lambda event: isinstance(event.status, InProgress))
        gate.open()
    assert {event.call.name for event in events} == {"subscribe"}
    operations = [event.operation for event in events.of(hooks.AttemptStarted)]
    assert operations == ["submit", "watch", "result"]
    ended = events.one(hooks.CallEnded)
    changed = events.of(hooks.StatusChanged)
    assert {event.request_id for event in changed} == {ended.request_id}
    assert isinstance(changed[-1].status, fal_async.Completed)
    assert ended.attempts == 3
    assert ended.seconds_in_queue is not None
    assert ended.seconds_in_run is not None
    assert changed[-1].status.metrics == {"inference_time": ended.seconds_in_run}


async def test_retries_are_reported(
    observed: AsyncClient, events: EventRecorder, fal: Emulator
) -> None:
    handle = await observed.submit(ECHO, {})
    await handle.get()
    events.clear()
    drop = Fault(route="status", drop=True, times=2)  # the first one is sent again by the pool
    fal.fail(ECHO, Fault(route="status", status=503), drop)
    await handle.status()
    assert [type(event) for event in events] == [
        hooks.CallStarted,
        hooks.AttemptStarted,
        hooks.ResponseStarted,
        hooks.RetryScheduled,
        hooks.AttemptStarted,
        hooks.AttemptFailed,
        hooks.RetryScheduled,
        hooks.AttemptStarted,
        hooks.ResponseStarted,
        hooks.CallEnded,
    ]
    assert events[0].call.request_id == handle.request_id
    assert [event.attempt for event in events.of(hooks.AttemptStarted)] == [1, 2, 3]
    first, second = events.of(hooks.RetryScheduled)
    assert (first.reason, first.attempt, second.attempt) == ("503", 1, 2)
    assert second.reason == events.one(hooks.AttemptFailed).reason
    assert events.one(hooks.AttemptFailed).sent
    assert (events.one(hooks.CallEnded).attempts, events.one(hooks.CallEnded).retries) == (3, 2)


async def test_failed_call_reports_its_error(
    observed: AsyncClient, events: EventRecorder, fal: Emulator
) -> None:
    def refuse(arguments: dict[str, Any]) -> None:
        raise AppError(422, [{"loc": ["body"], "msg": "no", "type": "x"}])

    fal.register("acme/refuses", refuse)
    with pytest.raises(InvalidInputError) as caught:
        await observed.run("acme/refuses", {})
    ended = events.one(hooks.CallEnded)
    assert (ended.outcome, ended.error) == ("failed", caught.value)
    assert ended.request_id == caught.value.request_id


async def test_waits_for_slots_are_reported(
    observed: AsyncClient, events: EventRecorder, gate: Gate, fal: Emulator
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, observed.run, SLOW)
        await fal.wait_for_counters(SLOW, executions=1)
        tasks.start_soon(call, observed.run, ECHO)
        await events.until(hooks.WaitingForSlot)
        assert observed.statistics().held == fal_async.LimitUsage(limit=1, used=1, waiting=1)
        gate.open()
    acquired = events.one(hooks.SlotAcquired)
    assert acquired.limit == events.one(hooks.WaitingForSlot).limit == "limits.held (1)"
    (ended,) = [each for each in events.of(hooks.CallEnded) if each.call is acquired.call]
    assert ended.seconds_in_slot == acquired.seconds > 0
    assert observed.statistics().held.used == 0


async def test_timeout_and_cancellation_are_outcomes(
    observed: AsyncClient, events: EventRecorder, gate: Gate, fal: Emulator
) -> None:
    with pytest.raises(FalClientTimeoutError) as caught:
        await observed.run(SLOW, {}, timeout=0.05)
    ended = events.one(hooks.CallEnded)
    assert (ended.outcome, ended.error) == ("timed_out", caught.value)
    events.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, observed.run, SLOW)
        await events.until(hooks.AttemptStarted)
        tasks.cancel_scope.cancel()
    assert events.one(hooks.CallEnded).outcome == "cancelled"


async def test_streams_report_their_events(observed: AsyncClient, events: EventRecorder) -> None:
    async with observed.stream(STREAM, {"steps": 3}, path="") as stream:
        received = [event async for event in stream]
    assert len(received) == 3
    assert [event.count for event in events.of(hooks.StreamEventReceived)] == [1, 2, 3]
    ended = events.one(hooks.CallEnded)
    assert (ended.outcome, ended.events, ended.call.name) == ("succeeded", 3, "stream")
    assert ended.request_id == stream.request_id
    assert ended.bytes_received > 0


async def test_closed_streams_are_reported(observed: AsyncClient, events: EventRecorder) -> None:
    async with observed.stream(STREAM, {"steps": 3}, path="") as stream:
        await anext(stream)
    assert events.one(hooks.CallEnded).outcome == "closed"
    events.clear()
    async for _ in observed.stream(STREAM, {"steps": 3}, path=""):
        break
    del stream
    assert events.one(hooks.CallEnded).outcome == "closed"


async def test_iterated_statuses_are_one_call(observed: AsyncClient, events: EventRecorder) -> None:
    handle = await observed.submit(ECHO, {})
    await handle.get()
    events.clear()
    statuses = [status async for status in handle.iter_events()]
    assert [event.status for event in events.of(hooks.StatusChanged)] == statuses
    assert {event.call.name for event in events} == {"iter_events"}
    assert events.one(hooks.CallEnded).outcome == "succeeded"


async def test_polls_are_no_retries(
    observed: AsyncClient, events: EventRecorder, gate: Gate
) -> None:
    handle = await observed.submit(SLOW, {})
    events.clear()
    polls = 0
    async for _ in handle.iter_events(interval=0.001):
        polls += 1
        if polls == 3:
            gate.open()
    attempts = events.of(hooks.AttemptStarted)
    assert {(event.operation, event.attempt) for event in attempts} == {("status", 1)}
    assert len({event.request for event in attempts}) == len(attempts) >= 3
    assert len(events.of(hooks.StatusChanged)) <= 3
    assert events.one(hooks.CallEnded).retries == 0


async def test_callbacks_make_calls_of_their_own(
    observed: AsyncClient, events: EventRecorder
) -> None:
    async def look(request_id: str) -> None:
        await observed.run(ECHO, {})

    await observed.subscribe(ECHO, {}, on_enqueue=look)
    assert [event.call.name for event in events.of(hooks.CallEnded)] == ["run", "subscribe"]


async def test_abandoned_jobs_report_their_cancellation(
    observed: AsyncClient, events: EventRecorder, gate: Gate
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, observed.subscribe, SLOW)
        await events.until(hooks.StatusChanged)
        tasks.cancel_scope.cancel()
    outcomes = {event.call.name: event.outcome for event in events.of(hooks.CallEnded)}
    assert outcomes == {"cancel": "succeeded", "subscribe": "cancelled"}


async def test_uploads_and_downloads_report_progress(
    observed: AsyncClient, events: EventRecorder, fal: Emulator
) -> None:
    await observed.run(ECHO, {"file": fal_async.Upload(bytes(100), "image/png", "a.png")})
    uploads = events.of(hooks.UploadProgress)
    assert {event.call.name for event in events} == {"run"}
    assert [(each.name, each.sent, each.size, each.complete) for each in uploads] == [
        ("a.png", 0, 100, False),
        ("a.png", 100, 100, False),
        ("a.png", 100, 100, True),
    ]
    events.clear()
    file = fal_async.File(url=fal.store(bytes(100), "image/png"))._bind(observed._dispatcher)
    assert len(await file.read()) == 100
    downloads = events.of(hooks.DownloadProgress)
    assert {event.call.name for event in events} == {"download"}
    assert (downloads[0].received, downloads[0].size) == (0, 100)
    assert (downloads[-1].received, downloads[-1].complete) == (100, True)
    ended = events.one(hooks.CallEnded)
    assert (ended.outcome, ended.bytes_received) == ("succeeded", 100)


async def test_events_are_frozen_values(observed: AsyncClient, events: EventRecorder) -> None:
    await observed.run(ECHO, {})
    for event in events:
        with pytest.raises(dataclasses.FrozenInstanceError):
            event.call = event.call  # type: ignore[misc]  # as the test is about
        assert "prompt" not in repr(event)


async def test_closed_client_ends_its_calls(
    observed: AsyncClient, events: EventRecorder, gate: Gate
) -> None:
    async def subscribe() -> None:
        with pytest.raises(ClientClosedError):
            await observed.subscribe(SLOW, {})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(subscribe)
        await events.until(hooks.StatusChanged, lambda event: not isinstance(event.status, Queued))
        await observed.aclose()
    assert {event.outcome for event in events.of(hooks.CallEnded)} == {"failed", "succeeded"}
