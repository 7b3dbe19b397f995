"""Cancellation: an abandoned `subscribe` cancels its job, an abandoned handle does not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
import pytest

from fal_async import (
    AsyncClient,
    Completed,
    FalClientTimeoutError,
    InProgress,
    InvalidRequestError,
    Queued,
    Status,
)
from fal_async.emulator import Emulator, Fault, Gate, Job
from tests.support.callbacks import CallbackRecorder

SLOW = "acme/slow"


@pytest.fixture
def gate(fal: Emulator) -> Gate:
    """The gate that holds each job of `acme/slow`."""
    gate = fal.gate()

    @fal.endpoint(SLOW, concurrency=1)
    async def slow(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        await gate.wait()
        return arguments

    return gate


def cancels(fal: Emulator) -> list[str | None]:
    return [request.request_id for request in fal.requests if request.route == "cancel"]


async def test_task_cancel_cancels_the_running_job(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    ids = CallbackRecorder[str]()
    async with anyio.create_task_group() as group:

        async def subscribe() -> None:
            await client.subscribe(SLOW, {}, on_enqueue=ids)

        group.start_soon(subscribe)
        await fal.wait_for_counters(SLOW, executions=1)
        await ids.until(bool)
        group.cancel_scope.cancel()

    assert cancels(fal) == ids
    assert fal.jobs[ids[0]].cancelled


async def test_task_cancel_cancels_the_queued_job(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    await client.submit(SLOW, {"first": True})
    ids = CallbackRecorder[str]()
    async with anyio.create_task_group() as group:

        async def subscribe() -> None:
            await client.subscribe(SLOW, {}, on_enqueue=ids)

        group.start_soon(subscribe)
        await ids.until(bool)
        group.cancel_scope.cancel()

    assert cancels(fal) == ids
    assert fal.counters(SLOW).executions == 1
    gate.open()


async def test_cancel_during_submit_cancels_the_job(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    """Hold the response until the caller has been cancelled."""
    response = fal.gate()
    fal.fail(SLOW, Fault(route="submit", delay=response))
    async with anyio.create_task_group() as group:

        async def subscribe() -> None:
            await client.subscribe(SLOW, {})

        group.start_soon(subscribe)
        await fal.wait_for_async(lambda: fal.count("submit") == 1)
        group.cancel_scope.cancel()
        response.open()

    assert len(fal.jobs) == 1
    assert cancels(fal) == list(fal.jobs)


async def test_cancelled_submit_cancels_its_job(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    response = fal.gate()
    fal.fail(SLOW, Fault(route="submit", delay=response))
    async with anyio.create_task_group() as group:

        async def submit() -> None:
            await client.submit(SLOW, {})

        group.start_soon(submit)
        await fal.wait_for_async(lambda: fal.count("submit") == 1)
        group.cancel_scope.cancel()
        response.open()

    assert cancels(fal) == list(fal.jobs)


async def test_anyio_deadline_cancels_the_job(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(0.3):
        await client.subscribe(SLOW, {})

    assert cancels(fal) == list(fal.jobs)


async def test_asyncio_wait_for_cancels_the_job(
    fal: Emulator, client: AsyncClient, gate: Gate, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        return
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.subscribe(SLOW, {}), 0.3)

    assert cancels(fal) == list(fal.jobs)


async def test_client_timeout_cancels_and_names_the_job(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    seen: list[Status] = []
    with pytest.raises(FalClientTimeoutError) as caught:
        await client.subscribe(SLOW, {}, client_timeout=0.4, on_queue_update=seen.append)

    assert [caught.value.request_id] == cancels(fal) == list(fal.jobs)
    assert caught.value.timeout == 0.4
    assert caught.value.last_status == seen[-1] == InProgress([])
    (submit,) = (request for request in fal.requests if request.route == "submit")
    assert submit.headers["x-fal-request-start-timeout"] == "0.4"
    assert submit.headers["x-fal-request-timeout"] == "0.4"


async def test_timeout_during_submit_cancels_the_job(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    fal.fail(SLOW, Fault(route="submit", delay=0.4))
    with pytest.raises(FalClientTimeoutError):
        await client.subscribe(SLOW, {}, client_timeout=0.2)

    assert cancels(fal) == list(fal.jobs)
    assert len(fal.jobs) == 1


@pytest.mark.parametrize("polling", [False, True], ids=["streaming", "polling"])
async def test_callback_exception_cancels_the_job(
    fal: Emulator, client: AsyncClient, gate: Gate, *, polling: bool
) -> None:
    async def refuse(status: Status) -> None:
        await anyio.lowlevel.checkpoint()
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match=r"^mine$") as caught:
        await client.subscribe(SLOW, {}, on_queue_update=refuse, interval=0.01 if polling else None)

    assert type(caught.value) is TimeoutError
    assert cancels(fal) == list(fal.jobs)


async def test_on_enqueue_exception_cancels_the_job(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    def refuse(request_id: str) -> None:
        raise LookupError(request_id)

    with pytest.raises(LookupError):
        await client.subscribe(SLOW, {}, on_enqueue=refuse)

    assert cancels(fal) == list(fal.jobs)


async def test_late_cancel_keeps_the_original_exception(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    gate.open()
    fal.fail(SLOW, Fault(route="cancel", status=404, times=None))

    def refuse(status: Status) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await client.subscribe(SLOW, {}, on_queue_update=refuse)


async def test_dropped_handle_keeps_its_job_running(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    handle = await client.submit(SLOW, {"n": 1})
    with anyio.move_on_after(0.2):
        await handle.get()
    with pytest.raises(FalClientTimeoutError) as caught:
        await handle.get(timeout=0.2)

    assert caught.value.request_id == handle.request_id
    assert caught.value.last_status == InProgress([])
    assert cancels(fal) == []
    gate.open()
    assert await handle.get() == {"n": 1}


async def test_callback_error_keeps_finished_job(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    gate.open()

    def refuse(status: Status) -> None:
        if status.__class__ is Completed:
            raise LookupError

    with pytest.raises(LookupError):
        await client.subscribe(SLOW, {}, on_queue_update=refuse)

    assert cancels(fal) == []


async def test_subscribe_cancels_cleanly_at_every_await(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    """Cancel after each of the first checkpoints; what was accepted must have been cancelled."""
    for steps in range(40):
        async with anyio.create_task_group() as group:

            async def subscribe() -> None:
                await client.subscribe(SLOW, {})

            group.start_soon(subscribe)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    await fal.wait_for_async(lambda: all(job.cancelled for job in fal.jobs.values()))
    gate.open()
    assert await client.subscribe(SLOW, {"still": "works"}) == {"still": "works"}


async def test_invalid_arguments_send_nothing(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    calls: list[dict[str, Any]] = [
        {"application": "no-slash"},
        {"application": "https://fal.run/acme/slow"},
        {"client_timeout": 0},
        {"client_timeout": float("nan")},
        {"client_timeout": True},
        {"interval": -1},
        {"start_timeout": 0.1},
        {"priority": "high"},
        {"tags": {"UPPER": "x"}},
        {"expires_in": 0},
        {"max_queue_length": -1},
        {"headers": {"x-evil": "a\r\nb: c"}},
        {"arguments": object()},
        {"arguments": {"x": object()}},
        {"path": "../other"},
        {"on_enqueue": 3},
        {"on_queue_update": "print"},
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError):
            await client.subscribe(**{"application": SLOW, "arguments": {}} | call)

    assert fal.requests == []
    with contextlib.suppress(InvalidRequestError):
        AsyncClient("  ")
        pytest.fail("a blank key was taken")


async def test_queue_position_changes_are_reported(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    seen = CallbackRecorder[Status]()
    handles = [await client.submit(SLOW, {}) for _ in range(2)]
    async with anyio.create_task_group() as group:

        async def follow() -> None:
            await client.subscribe(SLOW, {}, on_queue_update=seen)

        group.start_soon(follow)
        await seen.until(lambda reported: Queued(1) in reported)
        await handles[1].cancel()
        await seen.until(lambda reported: Queued(0) in reported)
        gate.open()

    assert seen[:3] == [Queued(1), Queued(0), InProgress([])]
    assert isinstance(seen[-1], Completed)
