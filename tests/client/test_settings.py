"""Arguments of clients, and timeouts of short calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fal_async import (
    AsyncClient,
    Completed,
    FalClientTimeoutError,
    Hosts,
    InvalidRequestError,
    NotFoundError,
)
from fal_async.emulator import Emulator, Fault
from fal_async.sync import SyncClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ECHO = "acme/echo"


def httpx2_transport() -> object:
    """Return an object like the transport of another package."""
    return type("AsyncHTTPTransport", (), {"__module__": "httpx2"})()


@pytest.mark.parametrize("make", [AsyncClient, SyncClient])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hosts": 7}, "hosts must be a Hosts or a base URL, got 7"),
        ({"hosts": "fal.run"}, "must be an absolute http:// or https:// URL"),
        ({"retry": 3}, "retry must be a RetryPolicy, got 3"),
        ({"limits": 5}, "limits must be a Limits, got 5"),
        ({"default_timeout": "5"}, "default_timeout must be a number of seconds, got '5'"),
        ({"default_timeout": httpx.Timeout(5)}, "default_timeout must be a number of seconds"),
        ({"transport": httpx.HTTPTransport()}, "got a httpx.HTTPTransport"),
        ({"transport": httpx.AsyncClient()}, "got a httpx.AsyncClient"),
        ({"transport": httpx2_transport()}, "got a httpx2.AsyncHTTPTransport"),
    ],
)
def test_arguments_of_the_wrong_kind_are_rejected(
    make: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        make("a:b", **options)


async def test_base_url_stands_for_all_hosts(fal: Emulator) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    async with AsyncClient(fal.key, hosts=fal.url) as client:
        assert await client.run(ECHO, {"seed": 7}) == {"seed": 7}
        assert client._dispatcher.hosts == Hosts.at(fal.url)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.submit(ECHO, {}, timeout=0.05),
        lambda client: client.status(ECHO, "764cabcf", timeout=0.05),
        lambda client: client.cancel(ECHO, "764cabcf", timeout=0.05),
        lambda client: client.attach({"application": ECHO, "request_id": "a"}).status(timeout=0.05),
        lambda client: client.attach({"application": ECHO, "request_id": "a"}).cancel(timeout=0.05),
    ],
    ids=["submit", "status", "cancel", "handle status", "handle cancel"],
)
async def test_short_calls_have_timeouts(
    fal: Emulator, client: AsyncClient, call: Callable[[AsyncClient], Awaitable[object]]
) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    fal.fail(ECHO, Fault(delay=0.3))
    with pytest.raises(FalClientTimeoutError) as caught:
        await call(client)
    assert caught.value.timeout == 0.05


async def test_calls_in_time_succeed(fal: Emulator, client: AsyncClient) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    assert await client.run(ECHO, {"seed": 7}, timeout=10) == {"seed": 7}
    assert await client.subscribe(ECHO, {"seed": 7}, client_timeout=10) == {"seed": 7}
    handle = await client.submit(ECHO, {"seed": 7}, timeout=10)
    assert await handle.get(timeout=10) == {"seed": 7}
    assert isinstance(await client.status(ECHO, handle.request_id, timeout=10), Completed)
    assert await handle.cancel(timeout=10) == "ALREADY_COMPLETED"
    with pytest.raises(NotFoundError):
        await client.run("acme/nothing", {}, timeout=10)


@pytest.mark.parametrize("timeout", [0, -1, "3", True])
async def test_invalid_timeouts_send_nothing(
    fal: Emulator, client: AsyncClient, timeout: Any
) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: client.submit(ECHO, {}, timeout=timeout),
        lambda: client.status(ECHO, "764cabcf", timeout=timeout),
        lambda: client.cancel(ECHO, "764cabcf", timeout=timeout),
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError, match="timeout must be"):
            await call()
    assert fal.requests == []


async def test_timed_out_submit_cancels_its_job(fal: Emulator, client: AsyncClient) -> None:
    gate = fal.gate()

    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    fal.register(ECHO, slow)
    fal.fail(ECHO, Fault(route="submit", delay_response=0.2))
    with pytest.raises(FalClientTimeoutError) as caught:
        await client.submit(ECHO, {}, timeout=0.05)
    assert caught.value.started is None  # unknown at the deadline
    await fal.wait_for_counters(ECHO, cancelled=1)
