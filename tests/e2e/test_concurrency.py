"""Concurrency: a thousand calls on default settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

if TYPE_CHECKING:
    from fal_async import AsyncClient
    from fal_async.emulator import Emulator

JOBS = 1000


@pytest.fixture(params=[{}, {"use_uvloop": True}, None], ids=["asyncio", "uvloop", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run asyncio without its debug mode, whose bookkeeping takes most of the time here."""
    return ("trio", {}) if request.param is None else ("asyncio", request.param)


@pytest.mark.slow
async def test_thousand_subscriptions_complete(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint("acme/echo")
    async def echo(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    results: list[int] = []

    async def subscribe(n: int) -> None:
        results.append((await client.subscribe("acme/echo", {"n": n}))["n"])

    async with anyio.create_task_group() as group:
        for n in range(JOBS):
            group.start_soon(subscribe, n)

    assert sorted(results) == list(range(JOBS))
    assert fal.count("submit") == JOBS
    assert fal.count("result") == JOBS
    assert fal.connections <= 100 + 256
