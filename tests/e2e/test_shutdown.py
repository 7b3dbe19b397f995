"""Shutdown: jobs are cancelled when their caller, client or event loop ends."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest

from fal_async import AsyncClient, ClientClosedError, FalClientTimeoutError, Limits
from fal_async.emulator import Emulator, Fault, Gate, Job
from tests.support.callbacks import CallbackRecorder, stderr_lines
from tests.support.cancel_points import cancel_everywhere

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

SLOW = "acme/slow"


@pytest.fixture(autouse=True)
def gate(fal: Emulator) -> Gate:
    """The gate that holds every job."""
    gate = fal.gate()

    @fal.endpoint(SLOW, concurrency=1000)
    async def slow(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
        await gate.wait()
        return arguments

    return gate


def running(fal: Emulator) -> list[str]:
    return [request_id for request_id, job in fal.jobs.items() if not job.cancelled]


def watched(fal: Emulator) -> set[str]:
    """Return the paths at which the statuses of jobs were requested."""
    routes = {"status", "status_stream"}
    return {request.path for request in fal.requests if request.route in routes}


async def nothing_runs(fal: Emulator, jobs: int) -> None:
    with anyio.fail_after(10):
        await fal.wait_for_async(lambda: len(fal.jobs) == jobs and not running(fal))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of the library; asyncio's debug mode has its own, of slow machines."""
    records = [each for each in caplog.records if each.name == "fal_async"]
    return [each.getMessage() for each in records if each.levelno >= logging.WARNING]


async def test_cancel_at_every_wait_leaves_no_job(fal: Emulator, client: AsyncClient) -> None:
    async def call() -> None:
        with anyio.move_on_after(0.3):
            await client.subscribe(SLOW, {})

    async for _ in cancel_everywhere(call):
        pass
    await fal.wait_for_async(lambda: not running(fal))
    assert len(fal.jobs) > 1


async def cancel_natively(task: asyncio.Task[Any], delays: list[float]) -> None:
    task.cancel()
    for delay in delays:
        await asyncio.sleep(delay)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("delays", [[0.0], [0.0, 0.0, 0.0], [0.001, 0.001]])
@pytest.mark.parametrize("call", ["subscribe", "submit"])
async def test_repeated_native_cancels_leave_no_job(
    fal: Emulator, client: AsyncClient, anyio_backend_name: str, delays: list[float], call: str
) -> None:
    if anyio_backend_name != "asyncio":
        return
    for steps in range(25):
        task = asyncio.create_task(getattr(client, call)(SLOW, {}))
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.done():
            await (await task).cancel()  # a handle, which is the caller's
        else:
            await cancel_natively(task, delays)
    await fal.wait_for_async(lambda: not running(fal))


async def test_double_cancel_still_reads_the_submission(
    fal: Emulator, client: AsyncClient, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        return
    held = fal.gate()
    fal.fail(SLOW, Fault(route="submit", delay=held))
    task = asyncio.create_task(client.submit(SLOW, {}))
    await fal.wait_for_async(lambda: fal.count("submit") == 1)
    await cancel_natively(task, [0.0])
    held.open()
    await nothing_runs(fal, 1)


Call: TypeAlias = "Callable[[], Coroutine[Any, Any, None]]"


async def cancel_calls(calls: list[Call], when: Call) -> None:
    """Run calls concurrently, and cancel them all after an event."""
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call)
        await when()
        group.cancel_scope.cancel()


async def test_cancel_works_while_all_slots_are_in_use(fal: Emulator) -> None:
    held = fal.gate()
    async with (
        AsyncClient(fal.key, hosts=fal.hosts, limits=Limits(control=1)) as client,
        anyio.create_task_group() as others,
    ):

        async def call() -> None:
            await client.subscribe(SLOW, {})

        async def other() -> None:
            await client.submit(SLOW, {"other": True})

        async def slots_in_use() -> None:
            await fal.wait_for_async(lambda: fal.count("status_stream") == 1)
            fal.fail(SLOW, Fault(route="submit", delay=held))
            others.start_soon(other)
            await fal.wait_for_async(lambda: fal.count("submit") == 2)

        await cancel_calls([call], slots_in_use)
        assert [job.cancelled for job in fal.jobs.values()] == [True]
        held.open()


@pytest.mark.slow
async def test_hundreds_of_abandoned_jobs_are_cancelled(fal: Emulator) -> None:
    fal.fail(SLOW, Fault(route="cancel", delay=0.02, times=None))
    ids = CallbackRecorder[str]()
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=Limits(control=20)) as client:

        async def call() -> None:
            await client.subscribe(SLOW, {}, on_enqueue=ids)

        await cancel_calls([call] * 200, lambda: ids.until(lambda reported: len(reported) == 200))
        assert running(fal) == []


async def test_temporary_key_failure_delays_the_cancels(fal: Emulator) -> None:
    keys = iter([fal.key, fal.key, None, fal.key])

    def provide() -> str:
        if (key := next(keys)) is None:
            raise LookupError("the vault is sealed")
        return key

    ids = CallbackRecorder[str]()
    async with AsyncClient(provide, hosts=fal.hosts) as client:

        async def call() -> None:
            await client.subscribe(SLOW, {}, on_enqueue=ids)

        await cancel_calls(
            [call], lambda: fal.wait_for_async(lambda: fal.count("status_stream") == 1)
        )
    await nothing_runs(fal, 1)


async def test_permanent_key_failure_warns_once(
    fal: Emulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fal_async._dispatch.cancellation.DELAYS", (0.0,))
    sealed = False

    def provide() -> str:
        if sealed:
            raise LookupError("the vault is sealed")
        return fal.key

    ids = CallbackRecorder[str]()
    async with AsyncClient(provide, hosts=fal.hosts) as client:

        async def call() -> None:
            await client.subscribe(SLOW, {}, on_enqueue=ids)

        async def seal() -> None:
            nonlocal sealed
            await fal.wait_for_async(lambda: fal.count("status_stream") == 3)
            sealed = True

        await cancel_calls([call] * 3, seal)
    (warning,) = warnings(caplog)
    assert warning.startswith("3 jobs could not be cancelled and may be running: ")
    assert all(request_id in warning for request_id in ids)
    assert warning.endswith("(LookupError: the vault is sealed)")


async def test_cancel_runs_in_the_context_of_its_caller(fal: Emulator) -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    keys = {f"tenant:{n}" for n in range(4)}
    for key in keys:
        fal.accept_key(key)

    async with AsyncClient(tenant.get, hosts=fal.hosts) as client:

        def call_as(key: str) -> Call:
            async def call() -> None:
                tenant.set(key)
                await client.subscribe(SLOW, {})

            return call

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(call_as(key))
            await fal.wait_for_async(lambda: fal.count("status_stream") == 4)
            await client.aclose()
            group.cancel_scope.cancel()

    sent: dict[str, set[str]] = {"submit": set(), "cancel": set()}
    for request in fal.requests:
        if request.route in sent:
            sent[request.route].add(request.headers["authorization"])
    assert sent["submit"] == sent["cancel"] == {f"Key {key}" for key in keys}


@pytest.mark.parametrize("interval", [None, 0.01], ids=["streaming", "polling"])
async def test_client_close_cancels_watched_jobs(
    fal: Emulator, client: AsyncClient, interval: float | None
) -> None:
    errors: list[ClientClosedError] = []

    async def call() -> None:
        with pytest.raises(ClientClosedError) as caught:
            await client.subscribe(SLOW, {}, interval=interval)
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call)
        await fal.wait_for_counters(SLOW, executions=3)
        await fal.wait_for_async(lambda: len(watched(fal)) == 3)  # so each caller knows its job
        await client.aclose()
        assert running(fal) == []
    assert {error.request_id for error in errors} == set(fal.jobs)
    assert {error.uncancelled for error in errors} == {()}


async def test_close_refuses_calls_and_awaits_submits(fal: Emulator, client: AsyncClient) -> None:
    held = fal.gate()
    fal.fail(SLOW, Fault(route="submit", delay=held))
    ids: list[str] = []

    async def submit() -> None:
        ids.append((await client.submit(SLOW, {})).request_id)

    async with anyio.create_task_group() as group:
        group.start_soon(submit)
        await fal.wait_for_async(lambda: fal.count("submit") == 1)
        group.start_soon(client.aclose)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ClientClosedError):
            await client.submit(SLOW, {})
        held.open()
    assert ids == running(fal) == list(fal.jobs)


async def test_close_waits_for_available_outputs(
    fal: Emulator, client: AsyncClient, gate: Gate
) -> None:
    held = fal.gate()
    fal.fail(SLOW, Fault(route="result", status=503, delay=held))
    outputs: list[Any] = []

    async def call() -> None:
        outputs.append(await client.subscribe(SLOW, {"n": 1}))

    gate.open()
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await fal.wait_for_async(lambda: fal.count("result") == 1)
        group.start_soon(client.aclose)
        await anyio.wait_all_tasks_blocked()
        held.open()
    assert outputs == [{"n": 1}]
    assert fal.count("cancel") == 0


async def test_close_continues_in_a_cancelled_task(fal: Emulator) -> None:
    held = fal.gate()
    fal.fail(SLOW, Fault(route="cancel", delay=held))
    async with anyio.create_task_group() as group:

        async def serve() -> None:
            async with AsyncClient(fal.key, hosts=fal.hosts) as client:
                await client.subscribe(SLOW, {})

        group.start_soon(serve)
        await fal.wait_for_counters(SLOW, executions=1)
        group.cancel_scope.cancel()
        held.open()
    await nothing_runs(fal, 1)


async def test_close_reports_uncancelled_jobs_once(
    fal: Emulator, client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    fal.fail(SLOW, Fault(route="cancel", status=403, times=None))
    errors: list[ClientClosedError] = []

    async def call() -> None:
        with pytest.raises(ClientClosedError) as caught:
            await client.subscribe(SLOW, {})
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(call)
        await fal.wait_for_async(lambda: fal.count("status_stream") == 2)
        await client.aclose()
    (warning,) = warnings(caplog)
    assert warning.startswith("2 jobs could not be cancelled and may be running: ")
    assert all(request_id in warning for request_id in fal.jobs)
    assert {error.uncancelled for error in errors} == {(each,) for each in fal.jobs}


async def test_close_has_a_time_limit(
    fal: Emulator,
    client: AsyncClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fal_async._dispatch.cancellation.CLEANUP_TIMEOUT", 0.2)
    held = fal.gate()
    fal.fail(SLOW, Fault(route="cancel", delay=held))

    async def call() -> None:
        with pytest.raises(ClientClosedError):
            await client.subscribe(SLOW, {})

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await fal.wait_for_async(lambda: fal.count("status_stream") == 1)
        await client.aclose()
    (warning,) = warnings(caplog)
    assert next(iter(fal.jobs)) in warning
    held.open()


async def test_deadline_error_lists_uncancelled_jobs(fal: Emulator, client: AsyncClient) -> None:
    fal.fail(SLOW, Fault(route="cancel", status=403))
    with pytest.raises(FalClientTimeoutError) as caught:
        await client.subscribe(SLOW, {}, client_timeout=0.3)
    assert caught.value.uncancelled == tuple(fal.jobs)
    with pytest.raises(FalClientTimeoutError) as caught:
        await client.subscribe(SLOW, {}, client_timeout=0.3)
    assert caught.value.uncancelled == ()


async def test_concurrent_closes_wait_for_each_other(fal: Emulator, client: AsyncClient) -> None:
    async def call() -> None:
        with pytest.raises(ClientClosedError):
            await client.subscribe(SLOW, {})

    async def close() -> None:
        await client.aclose()
        assert running(fal) == []

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await fal.wait_for_counters(SLOW, executions=1)
        group.start_soon(close)
        group.start_soon(close)


# Exiting programs

SUBSCRIBE = """
async def start():
    for _ in range(3):
        asyncio.create_task(fal_async.subscribe("acme/slow", {}))
    await anyio.to_thread.run_sync(sys.stdin.readline)
"""

#: Programs that start three jobs, wait for a line of input, and end.
PROGRAMS = {
    "asyncio.run": "asyncio.run(start())",
    "uvloop.run": "import uvloop; uvloop.run(start())",
    "a signal handler that cancels all tasks": """
async def main():
    await start()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for _ in range(2):
        for task in tasks: task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
asyncio.run(main())
""",
    "trio.run": """
import trio
async def main():
    async with trio.open_nursery() as nursery:
        for _ in range(3): nursery.start_soon(fal_async.subscribe, "acme/slow", {})
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()
trio.run(main)
""",
    "an error under an open client": """
async def main():
    async with fal_async.AsyncClient() as client:
        fal_async.subscribe = client.subscribe
        await start()
        raise LookupError
try: asyncio.run(main())
except LookupError: pass
""",
    "SystemExit": """
async def main():
    await start()
    sys.exit(0)
asyncio.run(main())
""",
    "atexit": """
import atexit
async def main():
    for _ in range(3): asyncio.create_task(fal_async.subscribe("acme/slow", {}))
    while not fed: await asyncio.sleep(0.01)
fed = []
threading.Thread(target=lambda: fed.append(sys.stdin.readline()), daemon=True).start()
atexit.register(lambda: asyncio.run(main()))
""",
    "blocking calls in daemon threads": """
import fal_async.sync
def call():
    try: fal_async.sync.subscribe("acme/slow", {})
    except fal_async.ClientClosedError: pass
for _ in range(3): threading.Thread(target=call, daemon=True).start()
sys.stdin.readline()
""",
    "a blocking client closed under other threads": """
import fal_async.sync
client = fal_async.sync.SyncClient()
def call():
    try: client.subscribe("acme/slow", {})
    except fal_async.ClientClosedError: pass
for _ in range(3): threading.Thread(target=call).start()
sys.stdin.readline()
client.close()
""",
}


def run_program(fal: Emulator, program: str) -> tuple[int, list[bytes]]:
    code = f"import anyio, asyncio, sys, threading, fal_async\n{SUBSCRIBE}\n{program}"
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)],
        env=os.environ | fal.environ,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        fal.wait_for(lambda: fal.counters(SLOW).executions == 3, timeout=30)
        _, stderr = child.communicate(b"\n", timeout=50)
    return child.returncode, stderr_lines(stderr)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_exiting_program_leaves_no_job(fal: Emulator, program: str) -> None:
    assert run_program(fal, program) == (0, [])
    assert running(fal) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        "loop = asyncio.new_event_loop(); loop.run_until_complete(start())",
        "loop = asyncio.new_event_loop(); loop.run_until_complete(start()); loop.close()",
    ],
    ids=["left", "closed"],
)
def test_unfinished_loop_warns_with_the_job_ids(fal: Emulator, program: str) -> None:
    _, lines = run_program(fal, f"import logging; logging.raiseExceptions = False\n{program}")
    output = b"\n".join(lines)
    assert b"may be running" in output
    assert all(request_id.encode() in output for request_id in running(fal))


UVICORN = """
import contextlib, os, signal, socket, uvicorn

client = None

async def ask(port):
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    return writer

async def terminate():
    await anyio.to_thread.run_sync(sys.stdin.readline)
    os.kill(os.getpid(), signal.SIGTERM)

async def app(scope, receive, send):
    global client
    if scope["type"] == "http":
        return await client.subscribe("acme/slow", {})
    await receive()
    async with fal_async.AsyncClient() as client:
        port = listener.getsockname()[1]
        tasks = [asyncio.create_task(ask(port)) for _ in range(3)]
        ended = asyncio.create_task(terminate())
        await send({"type": "lifespan.startup.complete"})
        await receive()
    for task in tasks: task.result().close()
    await send({"type": "lifespan.shutdown.complete"})

listener = socket.create_server(("127.0.0.1", 0))
config = uvicorn.Config(app, log_level="critical", ws="none", timeout_graceful_shutdown=1)
uvicorn.Server(config).run([listener])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM does not exist there")
def test_terminated_uvicorn_service_leaves_no_job(fal: Emulator) -> None:
    code, stderr = run_program(fal, f"import warnings; warnings.simplefilter('ignore')\n{UVICORN}")
    assert (code, stderr) == (-15, [])
    assert running(fal) == []
