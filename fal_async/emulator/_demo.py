"""Endpoints to try the emulator with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fal_async.emulator._errors import AppError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fal_async.emulator._emulator import Emulator
    from fal_async.emulator._job import Job
    from fal_async.emulator._sockets import Socket

Arguments = dict[str, Any]

_STEPS = 5
_SECONDS = 2.0
_WORDS = "the quick brown fox jumps over the lazy dog"


def add_demo_endpoints(fal: Emulator) -> None:
    """Register ``demo/echo``, ``demo/slow``, ``demo/fail``, ``demo/stream`` and ``demo/socket``."""
    fal.register("demo/echo", echo)
    fal.realtime("demo/echo")(echo)
    fal.websocket("demo/socket")(talk)
    fal.register("demo/slow", slow, concurrency=2)
    fal.register("demo/fail", fail)
    fal.register("demo/stream", stream)


async def echo(arguments: Arguments) -> Arguments:
    """Give the arguments back."""
    return arguments


async def talk(socket: Socket) -> None:
    """Give each message back."""
    async for message in socket:
        await socket.send(message)


async def slow(arguments: Arguments, job: Job) -> Arguments:
    """Take so many `steps` and `seconds`, and log each step; two jobs at once, others wait."""
    steps = int(arguments.get("steps", _STEPS))
    seconds = float(arguments.get("seconds", _SECONDS))
    for step in range(1, steps + 1):
        await asyncio.sleep(seconds / steps)
        job.log(f"step {step} of {steps}")
    return {"steps": steps, "seconds": seconds}


async def fail(arguments: Arguments) -> None:
    """Answer with the `status` and `detail` that are asked for."""
    status = int(arguments.get("status", 422))
    problem = {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
    raise AppError(status, arguments.get("detail", [problem]))


async def stream(arguments: Arguments) -> AsyncGenerator[Arguments]:
    """Give a `text` word by word, as language models do."""
    words = str(arguments.get("text", _WORDS)).split()
    for count in range(1, len(words) + 1):
        yield {"output": " ".join(words[:count]), "partial": count < len(words), "error": None}
        await asyncio.sleep(_SECONDS / len(words) / 10)
