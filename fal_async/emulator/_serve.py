"""Foreground server and demo endpoints."""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fal_async.emulator._emulator import Emulator
from fal_async.emulator._responses import AppError
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence
    from types import FrameType

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._runners.sockets import Socket

__all__ = []


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


def serve(
    app: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    allow_origins: Sequence[str] = (),
    announce: Callable[[Emulator], object] | None = None,
) -> None:
    """Run an emulator until Ctrl-C or SIGTERM.

    Args:
        app: What to serve, as ``module:attribute``: an `Emulator` that has not been started, a
            function that is given one to add endpoints to, or a mapping of endpoint ids to
            runners. ``None`` serves some endpoints to play with.
        host: The address to listen at.
        port: The port to listen at; 0 for a free one.
        key: The API key that is accepted; ``None`` makes one.
        allow_origins: Origins of web pages that may call, besides those of this machine.
        announce: Told of the emulator once it listens.

    Raises:
        InvalidRequestError: `app` does not name such a thing, or names an `Emulator`, which has a
            key and origins of its own, and others are given.
        OSError: The address cannot be listened at.
    """
    fal = load(app, key=key, allow_origins=allow_origins)
    with _sigterm_event() as stop:
        fal.start(host=host, port=port)
        try:
            if announce is not None:
                announce(fal)
            stop.wait()
        except KeyboardInterrupt:
            pass
        finally:
            fal.stop()


def load(app: str | None, *, key: str | None = None, allow_origins: Sequence[str] = ()) -> Emulator:
    """The emulator that is named, not yet started.

    Raises:
        InvalidRequestError: There is no such thing.
    """
    target = None if app is None else _attribute(app)
    if isinstance(target, Emulator):
        if key is not None or allow_origins:
            raise InvalidRequestError(
                f"{app} is an Emulator: give it key= and allow_origins= where it is made"
            )
        return target
    fal = Emulator(key=key, allow_origins=allow_origins)
    if app is None:
        add_demo_endpoints(fal)
    else:
        _register(fal, target, app)
    return fal


def _register(fal: Emulator, target: object, name: str) -> None:
    if isinstance(target, Mapping):
        for endpoint_id, runner in cast("Mapping[str, Any]", target).items():
            fal.register(endpoint_id, runner)
    elif callable(target):
        target(fal)
    else:
        raise InvalidRequestError(
            f"{name!r} is neither an Emulator, nor a function of one, nor a mapping of "
            f"endpoint ids to runners, but {type(target).__name__}"
        )


def _attribute(name: str) -> object:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise InvalidRequestError(f"an app is named module:attribute, got {name!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        target: object = importlib.import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise InvalidRequestError(f"cannot load {name!r}: {error}") from error
    return target


@contextmanager
def _sigterm_event() -> Generator[threading.Event]:
    """An event that SIGTERM sets."""
    stop = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = signal.signal(signal.SIGTERM, tell)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
