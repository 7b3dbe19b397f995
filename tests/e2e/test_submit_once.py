"""Submits: a job is sent again only when the platform certainly did not accept it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from fal_async import (
    AsyncClient,
    ConnectionFailedError,
    FalClientTimeoutError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    SubmitOutcomeUnknownError,
)
from fal_async.emulator import Emulator, Fault

ECHO = "acme/echo"


def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


@pytest.mark.parametrize(
    "fault",
    [
        Fault(route="submit", drop_response=True, times=3),
        Fault(route="submit", drop_response=True, reset=True, times=3),
        Fault(route="submit", raw_bytes=b"\x00\x01 not http\r\n\r\n", times=3),
        Fault(route="submit", cut=10, times=3),
    ],
    ids=["closed", "reset", "garbage", "cut"],
)
async def test_lost_submit_response_is_not_retried(
    fal: Emulator, client: AsyncClient, fault: Fault
) -> None:
    fal.register(ECHO, echo)
    fal.fail(ECHO, fault)

    with pytest.raises(SubmitOutcomeUnknownError) as caught:
        await client.submit(ECHO, {"prompt": "a cat"})

    assert fal.count("submit") == 1
    assert caught.value.application == ECHO
    assert ECHO in str(caught.value)
    assert "not sent again" in str(caught.value)


async def test_job_of_truncated_response_is_known(fal: Emulator, client: AsyncClient) -> None:
    fal.register(ECHO, echo)
    fal.fail(ECHO, Fault(route="submit", cut=5))

    with pytest.raises(SubmitOutcomeUnknownError) as caught:
        await client.submit(ECHO, {"n": 1})

    assert caught.value.request_id is not None
    assert caught.value.request_id in str(caught.value)
    handle = await client.get_handle(ECHO, caught.value.request_id)
    assert await handle.get() == {"n": 1}
    assert fal.count("submit") == 1


async def test_lost_run_response_is_not_retried(fal: Emulator, client: AsyncClient) -> None:
    fal.register(ECHO, echo)
    fal.fail(ECHO, Fault(route="run", drop_response=True, times=3))

    with pytest.raises(SubmitOutcomeUnknownError):
        await client.run(ECHO, {})

    assert fal.count("run") == 1


async def test_timed_out_run_is_started_once(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/slow")
    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    with pytest.raises(FalClientTimeoutError) as caught:
        await client.run("acme/slow", {}, timeout=0.2)

    assert caught.value.timeout == 0.2
    assert isinstance(caught.value, TimeoutError)
    assert fal.counters("acme/slow").executions == 1
    assert fal.count("run") == 1


async def test_unsent_submit_is_retried(fal: Emulator, client: AsyncClient) -> None:
    fal.register(ECHO, echo)
    head = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 5\r\n\r\n"
    fal.fail(ECHO, Fault(route="submit", raw_bytes=head + b"nginx", times=2))
    quick = client.with_options(retry=RetryPolicy(base_delay=0))

    result = await quick.subscribe(ECHO, {"n": 1})

    assert result == {"n": 1}
    assert fal.count("submit") == 3
    assert fal.counters(ECHO).executions == 1


async def test_gateway_failure_is_not_resubmitted(fal: Emulator, client: AsyncClient) -> None:
    fal.register(ECHO, echo)
    fal.fail(ECHO, Fault(route="submit", status=503, times=None))

    with pytest.raises(ServerError) as caught:
        await client.submit(ECHO, {})

    assert caught.value.request_id is not None
    assert fal.count("submit") == 1


async def test_run_over_concurrency_limit_is_retried(fal: Emulator) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/slow", concurrency=1)
    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    results: list[dict[str, Any]] = []
    patient = RetryPolicy(base_delay=0.01, max_delay=0.01, attempts=1000)
    async with AsyncClient(fal.key, hosts=fal.hosts, retry=patient) as client:

        async def run(n: int) -> None:
            results.append(await client.run("acme/slow", {"n": n}))

        async with anyio.create_task_group() as group:
            group.start_soon(run, 1)
            group.start_soon(run, 2)
            await fal.wait_for_async(lambda: fal.count("run") >= 3)
            gate.open()

    assert sorted(result["n"] for result in results) == [1, 2]
    assert fal.counters("acme/slow").executions == 2


async def test_result_counts_the_retries(fal: Emulator, client: AsyncClient) -> None:
    fal.register(ECHO, echo)
    fal.fail(ECHO, Fault(route="run", status=429, headers={"retry-after": "0"}, times=2))

    result = await client.run(ECHO, {"n": 1})

    assert result == {"n": 1}
    assert result.retries == 2


async def test_long_retry_after_is_raised_immediately(fal: Emulator, client: AsyncClient) -> None:
    fal.register(ECHO, echo)
    fal.fail(ECHO, Fault(route="run", status=429, headers={"retry-after": "3600"}, times=None))

    with pytest.raises(RateLimitError) as caught:
        await client.run(ECHO, {})

    assert caught.value.retry_after == 3600
    assert fal.count("run") == 1


async def test_queue_limit_raises_immediately(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    @fal.endpoint("acme/slow", concurrency=1)
    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    for _ in range(3):
        await client.submit("acme/slow", {})
    with pytest.raises(RateLimitError):
        await client.submit("acme/slow", {}, max_queue_length=1)

    assert fal.count("submit") == 4
    gate.open()


async def test_unreachable_platform_was_not_contacted() -> None:
    with Emulator() as gone:
        hosts = gone.hosts
    policy = RetryPolicy(attempts=2, base_delay=0)
    async with AsyncClient("id:secret", hosts=hosts, retry=policy) as client:
        with pytest.raises(ConnectionFailedError):
            await client.submit(ECHO, {})
