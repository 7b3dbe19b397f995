"""`missed`: which jobs without a callback have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fal_async import AsyncRequestHandle, ClientClosedError, InvalidRequestError, NotFoundError
from fal_async.webhooks import missed
from tests.support.http import echo, gated_echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fal_async import AsyncClient
    from fal_async.emulator import Emulator


async def submit(client: AsyncClient, count: int, endpoint: str = "acme/echo") -> list[Any]:
    return [await client.submit(endpoint, {"number": number}) for number in range(count)]


async def collect(jobs: Any, client: AsyncClient | None = None) -> list[AsyncRequestHandle]:
    return [handle async for handle in missed(jobs, client=client)]


async def test_ended_jobs_are_yielded_in_order(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/echo", echo)
    gate = fal.gate()
    fal.register("acme/held", gated_echo(gate))
    handles = await submit(client, 40)  # more than are asked for at once
    for handle in handles:
        await handle.get()
    running = await submit(client, 2, "acme/held")
    assert await collect([running[0], *handles, running[1]]) == handles
    gate.open()


async def test_jobs_may_be_data_from_a_database(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/echo", echo)
    handles = await submit(client, 3)
    for handle in handles:
        await handle.get()

    async def rows() -> AsyncIterator[dict[str, str]]:
        for handle in handles:
            yield {"application": handle.application, "request_id": handle.request_id}

    found = await collect(rows(), client)
    assert [(await handle.get())["number"] for handle in found] == [0, 1, 2]


async def test_failed_jobs_are_yielded_too(fal: Emulator, client: AsyncClient) -> None:
    def fail(_: object) -> None:
        raise ValueError("boom")

    fal.register("acme/fail", fail)
    [handle] = await submit(client, 1, "acme/fail")
    fal.wait_for(lambda: fal.counters("acme/fail").completed == 1)
    assert await collect([handle]) == [handle]


async def test_forgotten_jobs_are_yielded_too(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/echo", echo)
    [handle] = await submit(client, 1)
    fal.expire(handle.request_id)
    [found] = await collect([handle])
    with pytest.raises(NotFoundError):
        await found.get()


async def test_errors_of_the_call_are_raised(client: AsyncClient, fal: Emulator) -> None:
    fal.register("acme/echo", echo)
    [handle] = await submit(client, 1)
    await client.aclose()
    with pytest.raises(ClientClosedError):
        await collect([handle])


@pytest.mark.parametrize("job", ["764cabcf", 7, None])
async def test_other_jobs_are_refused(job: Any) -> None:
    with pytest.raises(InvalidRequestError, match="a job must be a handle or its data, got "):
        await collect([job])
