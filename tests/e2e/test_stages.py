"""Errors: the stage of the call, and whether a job was started."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fal_async import (
    AsyncClient,
    FalClientError,
    FalClientTimeoutError,
    Hosts,
    Limits,
    Queued,
    RetryPolicy,
    Upload,
)
from fal_async.emulator import Emulator, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fal_async.emulator import Gate

ECHO = "acme/echo"
FAILS = "acme/fails"
SLOW = "acme/slow"
STREAM = "acme/stream"


def failing(_: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("out of memory")


@pytest.fixture
def gate(fal: Emulator) -> Gate:
    """The gate that holds the slow app."""
    gate = fal.gate()

    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    async def stream(_: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {"n": 1}
        await gate.wait()

    fal.register(ECHO, lambda arguments: arguments)
    fal.register(FAILS, failing)
    fal.register(SLOW, slow)
    fal.register(STREAM, stream)
    return gate


async def read(client: AsyncClient, **options: Any) -> None:
    async with client.stream(STREAM, {}, **options) as events:
        async for _ in events:
            pass


async def get_unknown(client: AsyncClient) -> None:
    await (await client.get_handle(ECHO, "no-such-job")).get()


async def collect(client: AsyncClient, application: str, **options: Any) -> None:
    await (await client.submit(application, {})).get(**options)


FILE = {"image": Upload(b"x" * 10, content_type="image/png")}
OUTCOMES: list[Any] = [
    pytest.param(Fault(route="run", status=403), lambda c: c.run(ECHO, {}), "submit", False),
    pytest.param(Fault(route="run", drop_response=True), lambda c: c.run(ECHO, {}), "job", None),
    pytest.param(None, lambda c: c.run(FAILS, {}), "job", True),
    pytest.param(None, lambda c: c.run("acme/none", {}), "job", None),
    pytest.param(None, lambda c: c.run(ECHO, {}, output=int), "result", True),
    pytest.param(None, lambda c: c.run(SLOW, {}, timeout=0.2), "job", None),
    pytest.param(Fault(route="submit", status=403), lambda c: c.submit(ECHO, {}), "submit", False),
    pytest.param(
        Fault(route="submit", drop_response=True), lambda c: c.submit(ECHO, {}), "submit", None
    ),
    pytest.param(
        Fault(route="submit", drop_response=True), lambda c: c.subscribe(ECHO, {}), "submit", None
    ),
    pytest.param(None, lambda c: c.submit("acme/none", {}), "submit", False),
    pytest.param(None, lambda c: c.subscribe(FAILS, {}), "job", True),
    pytest.param(None, lambda c: c.subscribe(ECHO, {}, output=int), "result", True),
    pytest.param(None, lambda c: c.subscribe(SLOW, {}, client_timeout=0.5), "wait", True),
    pytest.param(None, lambda c: collect(c, FAILS), "job", True),
    pytest.param(None, lambda c: collect(c, SLOW, timeout=0.3), "wait", True),
    pytest.param(Fault(route="result", cut=1), lambda c: collect(c, ECHO), "result", True),
    pytest.param(None, lambda c: c.status(ECHO, "no-such-job"), "wait", None),
    pytest.param(None, get_unknown, "wait", None),
    pytest.param(None, lambda c: read(c, idle_timeout=0.3), "job", True),
    pytest.param(Fault(route="stream", status=429), read, "submit", False),
    pytest.param(
        Fault(route="upload", status=403, times=9), lambda c: c.run(ECHO, FILE), "upload", False
    ),
    pytest.param(
        Fault(route="upload", status=403, times=9),
        lambda c: c.upload(b"x", "text/plain"),
        "upload",
        False,
    ),
    pytest.param(None, lambda c: c.download("http://127.0.0.1:1/x", "x"), "download", False),
    pytest.param(None, lambda c: c.run("no id", {}), None, False),
]


@pytest.mark.parametrize(("fault", "call", "stage", "started"), OUTCOMES)
async def test_error_reports_the_stage_of_the_call(
    fal: Emulator,
    gate: Gate,
    fault: Fault | None,
    call: Callable[[AsyncClient], Awaitable[object]],
    stage: str | None,
    started: bool | None,
) -> None:
    if fault is not None:
        fal.fail(None, fault)
    async with AsyncClient(fal.key, hosts=fal.hosts, retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(FalClientError) as caught:
            await call(client)
        gate.open()
    for error in (caught.value, copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert (error.stage, error.started) == (stage, started), repr(error)


@pytest.mark.parametrize(
    ("limits", "call", "full"),
    [
        (Limits(held=1), lambda c: c.run(SLOW, {}, timeout=0.1), "limits.held (1)"),
        (Limits(held=1), lambda c: read(c, timeout=0.1), "limits.held (1)"),
        (
            Limits(control=1),
            lambda c: c.subscribe(SLOW, {}, client_timeout=1),
            "limits.control (1)",
        ),
    ],
)
async def test_timeout_at_limit_names_the_limit(
    fal: Emulator,
    gate: Gate,
    limits: Limits,
    call: Callable[[AsyncClient], Awaitable[object]],
    full: str,
) -> None:
    fal.fail(None, Fault(route="submit", delay=gate))
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client:

        async def occupy() -> None:
            await (client.run if limits.held == 1 else client.submit)(SLOW, {})

        async with anyio.create_task_group() as group:
            group.start_soon(occupy)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(FalClientTimeoutError) as caught:
                await call(client)
            gate.open()
    assert (caught.value.stage, caught.value.started) == ("submit", False)
    assert caught.value.waiting_for == full
    assert "nothing was sent" in str(caught.value)
    assert full in str(caught.value)
    assert fal.count("run") + fal.count("submit") + fal.count("stream") == 1


async def test_calls_in_callbacks_have_their_own_stage(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    async def look(status: object) -> None:
        if isinstance(status, Queued):
            await client.run(ECHO, {})
        else:
            await client.run(SLOW, {})

    with pytest.raises(FalClientTimeoutError) as caught:
        await client.subscribe(SLOW, {}, on_queue_update=look, client_timeout=0.5)
    assert (caught.value.stage, caught.value.started) == ("wait", True)


@pytest.mark.parametrize("call", ["run", "subscribe", "submit"])
async def test_unreachable_platform_was_sent_nothing(call: str) -> None:
    hosts = Hosts.at("http://127.0.0.1:1")
    async with AsyncClient("id:key", hosts=hosts, retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(FalClientError) as caught:
            await getattr(client, call)(ECHO, {})
    assert (caught.value.stage, caught.value.started) == ("submit", False)
