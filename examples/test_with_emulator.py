"""Tests of code that calls fal, without a network, a key or a bill. Run them with pytest."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import fal_async
from fal_async.emulator import AppError, Emulator, Fault, Job

MODEL = "fal-ai/flux/dev"
pytestmark = pytest.mark.anyio


async def draw_or_none(client: fal_async.AsyncClient, prompt: str) -> str | None:
    """The code under test: return the URL of an image, or ``None`` for rejected prompts."""
    try:
        result = await client.subscribe(MODEL, {"prompt": prompt})
    except fal_async.ContentPolicyError:
        return None
    url: str = result["images"][0]["url"]
    return url


def model(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
    """The model, as far as the tests need one."""
    job.log(f"drawing {arguments['prompt']}")
    if arguments["prompt"] == "something forbidden":
        raise AppError(
            422,
            [{"loc": ["body", "prompt"], "msg": "rejected", "type": "content_policy_violation"}],
        )
    return {"images": [{"url": "https://example.com/image.png"}]}


@pytest.fixture(autouse=True)
def registered_model(fal: Emulator) -> None:
    """Register the model; the fixture `fal` is that of the plugin."""
    fal.register(MODEL, model, concurrency=1)


async def test_image(fal: Emulator, async_fal_client: fal_async.AsyncClient) -> None:
    assert await draw_or_none(async_fal_client, "a fox") == "https://example.com/image.png"
    assert [job.arguments for job in fal.jobs.values()] == [{"prompt": "a fox"}]


async def test_rejected_prompt(async_fal_client: fal_async.AsyncClient) -> None:
    assert await draw_or_none(async_fal_client, "something forbidden") is None


async def test_a_rejected_submit_and_a_lost_connection_start_one_job(
    fal: Emulator, async_fal_client: fal_async.AsyncClient
) -> None:
    busy = Fault(route="submit", status=429, headers={"retry-after": "0"})
    fal.fail(MODEL, busy, Fault(route="status_stream", cut=50))

    assert await draw_or_none(async_fal_client, "a fox") is not None
    assert fal.counters(MODEL).executions == 1


async def test_cancelling_the_caller_cancels_the_job(
    fal: Emulator, async_fal_client: fal_async.AsyncClient
) -> None:
    gate = fal.gate()
    fal.fail(MODEL, Fault(route="runner", delay=gate))

    async with anyio.create_task_group() as group:
        group.start_soon(draw_or_none, async_fal_client, "a fox")
        await fal.wait_for_async(lambda: len(fal.jobs) == 1)
        group.cancel_scope.cancel()

    await fal.wait_for_counters(MODEL, cancelled=1)
