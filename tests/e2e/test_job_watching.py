"""Waiting for jobs: status streams, polling, fallbacks and logs."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from fal_async import AsyncClient, Completed, InProgress, Limits, NotFoundError, Status, Unknown
from fal_async._client import watcher
from fal_async._protocol.retry import BackoffSchedule
from fal_async.emulator import Emulator, Fault, Job

TALK = "acme/talk"
#: Log entries of the app, some of them twice.
LINES = ["load", "step", "step", "step", "done", "done"]


@pytest.fixture
def talk(fal: Emulator) -> str:
    """An endpoint that writes log entries at short intervals."""

    @fal.endpoint(TALK)
    async def write_logs(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        for line in LINES:
            job.log(line)
            await anyio.sleep(0.02)
        return {"lines": len(LINES)}

    return TALK


def messages(statuses: list[Status]) -> list[str]:
    return [
        line["message"]
        for status in statuses
        if isinstance(status, InProgress | Completed)
        for line in status.logs or []
    ]


async def test_streamed_wait_takes_three_requests(
    fal: Emulator, client: AsyncClient, talk: str
) -> None:
    async def subscribe() -> None:
        await client.subscribe(talk, {})

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(subscribe)

    routes = [request.route for request in fal.requests]
    assert {route: routes.count(route) for route in set(routes)} == {
        "submit": 20,
        "status_stream": 20,
        "result": 20,
    }


@pytest.mark.parametrize("interval", [None, 0.005], ids=["stream", "poll"])
async def test_log_entries_arrive_once_and_in_order(
    fal: Emulator, client: AsyncClient, talk: str, interval: float | None
) -> None:
    seen: list[Status] = []
    await client.subscribe(talk, {}, with_logs=True, interval=interval, on_queue_update=seen.append)

    assert messages(seen) == LINES


async def test_sliding_window_logs_arrive_once() -> None:
    seen: list[Status] = []
    lines = [f"line {n // 3}" for n in range(60)]  # each is written three times
    with Emulator(log_window=30) as fal:

        @fal.endpoint(TALK)
        async def write_logs(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
            for line in lines:
                job.log(line)
                await anyio.sleep(0.005)
            return {}

        async with AsyncClient(fal.key, hosts=fal.hosts) as client:
            await client.subscribe(
                TALK, {}, with_logs=True, interval=0.002, on_queue_update=seen.append
            )

    assert messages(seen) == lines


async def test_unrequested_logs_are_not_delivered(
    fal: Emulator, client: AsyncClient, talk: str
) -> None:
    handle = await client.submit(talk, {})
    events = [event async for event in handle.iter_events()]

    assert all(event.logs == [] for event in events if isinstance(event, InProgress | Completed))
    assert await handle.status(with_logs=True) != await handle.status()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(route="status_stream", status=404, times=None),
        Fault(route="status_stream", status=405, times=None),
        Fault(route="status_stream", status=500, times=None),
        Fault(route="status_stream", drop=True, times=None),
        Fault(route="status_stream", reset=True, times=None),
        Fault(route="status_stream", cut=200, times=None),
        Fault(route="status_stream", cut=0, times=None),
        Fault(route="status_stream", status=200, body={"not": "a stream"}, times=None),
        Fault(route="status_stream", raw_bytes=b"garbage\r\n\r\n", times=None),
        Fault(
            route="status_stream",
            status=200,
            headers={"content-type": "text/event-stream"},
            body="data: not json\n\n",
            times=None,
        ),
        Fault(
            route="status_stream",
            status=200,
            headers={"content-type": "text/event-stream"},
            body=": nothing\n\n",
            times=None,
        ),
    ],
    ids=lambda fault: str(fault.status or fault.cut or fault.raw_bytes or "broken"),
)
async def test_failed_stream_falls_back_to_polling(
    fal: Emulator, client: AsyncClient, talk: str, fault: Fault
) -> None:
    fal.fail(talk, fault)
    seen: list[Status] = []
    result = await client.subscribe(talk, {}, with_logs=True, on_queue_update=seen.append)

    assert result == {"lines": len(LINES)}
    assert messages(seen) == LINES
    assert fal.count("status") >= 1


async def test_broken_status_stream_is_reopened(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/slow")
    async def slow(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        await gate.wait()
        return arguments

    async def subscribe() -> None:
        await client.subscribe("acme/slow", {})

    fal.fail("acme/slow", Fault(route="status_stream", cut=50))
    async with anyio.create_task_group() as group:
        group.start_soon(subscribe)
        await fal.wait_for_async(lambda: fal.count("status_stream") == 2)
        gate.open()


async def test_stream_media_type_is_case_insensitive(
    fal: Emulator, client: AsyncClient, talk: str
) -> None:
    headers = {"content-type": "Text/Event-Stream"}
    fal.fail(talk, Fault(route="status_stream", headers=headers))
    await client.subscribe(talk, {})

    assert fal.count("status") == 0


async def test_waits_over_the_limit_queue_for_a_stream(fal: Emulator, talk: str) -> None:
    limits = Limits(max_streams=2)
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client:

        async def subscribe() -> None:
            await client.subscribe(talk, {})

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(subscribe)
        gates = client._dispatcher.resources.lanes.get()
        assert gates.streams.free == 2

    assert fal.counters(talk).completed == 20
    assert fal.count("result") == 20
    assert fal.count("status_stream") == 20


async def test_queued_waits_poll_occasionally(
    fal: Emulator, talk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "WAITING_FOR_STREAM", BackoffSchedule(0.01, 1, 0.01))
    gate = fal.gate()

    @fal.endpoint("acme/endless")
    async def endless(arguments: dict[str, Any]) -> None:
        await gate.wait()

    async with AsyncClient(fal.key, hosts=fal.hosts, limits=Limits(max_streams=1)) as client:

        async def occupy() -> None:
            await client.subscribe("acme/endless", {})

        async with anyio.create_task_group() as group:
            group.start_soon(occupy)
            await fal.wait_for_async(lambda: fal.count("status_stream") == 1)
            assert await client.subscribe(talk, {}) == {"lines": len(LINES)}
            gate.open()

    assert fal.count("status_stream") == 1
    assert fal.count("status") >= 1


@pytest.mark.parametrize("max_streams", [0, 1])
async def test_cancelled_wait_leaves_the_queue(fal: Emulator, talk: str, max_streams: int) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/endless")
    async def endless(arguments: dict[str, Any]) -> None:
        await gate.wait()

    limits = Limits(max_streams=max_streams)
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client:

        async def occupy() -> None:
            await client.subscribe("acme/endless", {})

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(occupy)
            await fal.wait_for_async(lambda: fal.count("submit") == 3)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        gates = client._dispatcher.resources.lanes.get()
        assert gates.streams.free == max_streams

    assert fal.count("cancel") == 3


async def test_interval_selects_polling(fal: Emulator, client: AsyncClient, talk: str) -> None:
    await client.subscribe(talk, {}, interval=0.01)

    assert fal.count("status_stream") == 0


async def test_interval_reports_a_status_per_poll(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/slow")
    async def slow(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        job.log("started")
        await gate.wait()
        return arguments

    handle = await client.submit("acme/slow", {})
    seen: list[Status] = []
    async for status in handle.iter_events(with_logs=True, interval=0.01):
        seen.append(status)
        if len(seen) == 10:  # nothing has changed for a while, and the loop still runs
            gate.open()

    assert fal.count("status") == len(seen)
    assert messages(seen) == ["started"]


async def test_callback_error_ends_a_polling_wait(fal: Emulator, client: AsyncClient) -> None:
    never = fal.gate()

    @fal.endpoint("acme/slow")
    async def slow(arguments: dict[str, Any]) -> None:
        await never.wait()

    seen: list[Status] = []

    def stop(status: Status) -> None:
        seen.append(status)
        if len(seen) == 10:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await client.subscribe("acme/slow", {}, interval=0.01, on_queue_update=stop)

    assert fal.count("cancel") == 1


@pytest.mark.parametrize("interval", [None, 0.01], ids=["stream", "poll"])
async def test_unknown_status_does_not_end_the_wait(
    fal: Emulator, client: AsyncClient, talk: str, interval: float | None
) -> None:
    def renamed(body: dict[str, Any]) -> dict[str, Any]:
        body.pop("logs", None)
        body.pop("queue_position", None)
        return body | {"status": "PAUSED"}

    fal.fail(talk, Fault(route="status", transform=renamed, times=2))
    fal.fail(talk, Fault(route="status_stream", status=404))
    seen: list[Status] = []
    await client.subscribe(talk, {}, interval=interval, on_queue_update=seen.append)

    assert isinstance(seen[0], Unknown)
    assert seen[0].raw["status"] == "PAUSED"
    assert isinstance(seen[-1], Completed)


async def test_unknown_job_raises_a_typed_error(fal: Emulator, client: AsyncClient) -> None:
    fal.register(TALK, lambda arguments: arguments)
    handle = await client.get_handle(TALK, "764cabcf-b745-4b3e-ae38-1200304cf45b")

    for call in (handle.get, handle.status, handle.cancel):
        with pytest.raises(NotFoundError) as caught:
            await call()
        assert caught.value.request_id is not None


async def test_early_exit_from_events_closes_the_stream(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/slow")
    async def slow(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        await gate.wait()
        return arguments

    handle = await client.submit("acme/slow", {})
    events = handle.iter_events()
    async for _ in events:
        break
    await events.aclose()
    await fal.wait_for_async(lambda: fal.connections == 0)
    gate.open()


@pytest.mark.parametrize("differs", ["key", "endpoint"])
async def test_keys_and_endpoints_share_streams_fairly(
    fal: Emulator, talk: str, monkeypatch: pytest.MonkeyPatch, differs: str
) -> None:
    monkeypatch.setattr(watcher, "WAITING_FOR_STREAM", BackoffSchedule(1000, 1, 1000))
    gate = fal.gate()

    @fal.endpoint("acme/endless")
    async def endless(arguments: dict[str, Any]) -> None:
        await gate.wait()

    limits = Limits(max_streams=3)
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client:
        tenant = client.with_options(key=fal.key) if differs == "key" else client

        async def occupy() -> None:
            await client.subscribe("acme/endless", {})

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(occupy)
            await fal.wait_for_async(lambda: fal.count("status_stream") == 3)
            await fal.wait_for_async(lambda: fal.count("submit") == 6)
            assert await tenant.subscribe(talk, {}) == {"lines": len(LINES)}
            gate.open()
        assert client._dispatcher.resources.lanes.get().streams.free == 3

    assert fal.count("result") == 7
