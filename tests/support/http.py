"""Requests to the emulator over plain HTTP, and runners for them."""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from fal_async.emulator import Emulator, Gate, Job

Arguments = dict[str, Any]


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def make_client(fal: Emulator, **options: Any) -> httpx.Client:
    headers = {"Authorization": f"Key {fal.key}"}
    return httpx.Client(base_url=fal.url, headers=headers, timeout=10, verify=_tls(), **options)


def echo(arguments: Arguments) -> Arguments:
    return arguments


class Text(BaseModel):
    text: str


async def upper(arguments: Text, job: Job) -> Arguments:
    job.log("step 1")
    job.log("step 2")
    return {"text": arguments.text.upper()}


async def count(arguments: Arguments) -> AsyncGenerator[Arguments]:
    for step in range(arguments["steps"]):
        yield {"step": step}


def gated_echo(gate: Gate) -> Callable[[Arguments], Coroutine[None, None, Arguments]]:
    async def wait(arguments: Arguments) -> Arguments:
        await gate.wait()
        return arguments

    return wait


def submit(http: httpx.Client, endpoint: str = "acme/app", **options: Any) -> dict[str, Any]:
    options.setdefault("json", {})
    response = http.post(f"/queue/{endpoint}", **options).raise_for_status()
    submitted: dict[str, Any] = response.json()
    return submitted


def wait_for_completed(fal: Emulator, jobs: int = 1, endpoint: str = "acme/app") -> None:
    fal.wait_for(lambda: fal.counters(endpoint).completed >= jobs)
