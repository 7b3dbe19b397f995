"""Foreground server and demo endpoints."""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fal_async.emulator._emulator import Emulator
from fal_async.emulator._responses import AppError
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from types import FrameType

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._runners.sockets import Socket

Arguments = dict[str, Any]

_STEPS = 5
_SECONDS = 2.0
_TEXT = "the quick brown fox jumps over the lazy dog"


def serve(
    app: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    allow_origins: Sequence[str] = (),
    on_started: Callable[[Emulator], object] | None = None,
) -> None:
    """Run an emulator until Ctrl-C or SIGTERM.

    Args:
        app: The object to serve, as ``module:attribute``: an `Emulator` that has not been started,
            a function that adds endpoints to an `Emulator`, or a mapping of endpoint ids to
            runners. ``None`` serves the demo endpoints.
        host: The address to listen on.
        port: The port to listen on; 0 for a free one.
        key: The accepted API key. ``None`` generates a random one.
        allow_origins: The origins of web pages that may send requests, besides those of this
            machine.
        on_started: Called with the emulator once it listens.

    Raises:
        InvalidRequestError: `app` does not name such an object, or it names an `Emulator` and a key
            or origins are given.
        OSError: The emulator cannot listen on this address.
    """
    fal = load(app, key=key, allow_origins=allow_origins)
    stop = threading.Event()

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        fal.start(host=host, port=port)
        try:
            if on_started is not None:
                on_started(fal)
            stop.wait()
        except KeyboardInterrupt:
            pass
        finally:
            fal.stop()
    finally:
        signal.signal(signal.SIGTERM, previous)


def load(app: str | None, *, key: str | None = None, allow_origins: Sequence[str] = ()) -> Emulator:
    """Return the emulator for `app`, not yet started.

    Raises:
        InvalidRequestError: `app` does not name a suitable object.
    """
    target = None if app is None else _import_object(app)
    if isinstance(target, Emulator):
        if key is not None or allow_origins:
            raise InvalidRequestError(
                f"cannot change key and allow_origins of {app}: it is an Emulator; pass them to "
                "its constructor"
            )
        return target
    fal = Emulator(key=key, allow_origins=allow_origins)
    if app is None:
        add_demo_endpoints(fal)
    elif isinstance(target, Mapping):
        for endpoint_id, runner in cast("Mapping[str, Any]", target).items():
            fal.register(endpoint_id, runner)
    elif callable(target):
        target(fal)
    else:
        raise InvalidRequestError(
            f"{app!r} must be an Emulator, a function of an Emulator, or a mapping of endpoint ids "
            f"to runners, got {type(target).__name__}"
        )
    return fal


def _import_object(name: str) -> object:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise InvalidRequestError(f"app must be module:attribute, got {name!r}")
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        target: object = importlib.import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise InvalidRequestError(f"cannot load {name!r}: {error}") from error
    return target


def add_demo_endpoints(fal: Emulator) -> None:
    """Register ``demo/echo``, ``demo/slow``, ``demo/fail``, ``demo/stream`` and ``demo/socket``."""
    fal.register("demo/echo", echo)
    fal.realtime("demo/echo")(echo)
    fal.websocket("demo/socket")(echo_messages)
    fal.register("demo/slow", slow, concurrency=2)
    fal.register("demo/fail", fail)
    fal.register("demo/stream", stream)


async def echo(arguments: Arguments) -> Arguments:
    """Return the arguments."""
    return arguments


async def echo_messages(socket: Socket) -> None:
    """Send each received message back."""
    async for message in socket:
        await socket.send(message)


async def slow(arguments: Arguments, job: Job) -> Arguments:
    """Take the given `seconds` for the given `steps`, and log each step."""
    steps = int(arguments.get("steps", _STEPS))
    seconds = float(arguments.get("seconds", _SECONDS))
    for step in range(1, steps + 1):
        await asyncio.sleep(seconds / steps)
        job.log(f"step {step} of {steps}")
    return {"steps": steps, "seconds": seconds}


async def fail(arguments: Arguments) -> None:
    """Fail with the given `status` and `detail`."""
    status = int(arguments.get("status", 422))
    missing = {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
    raise AppError(status, arguments.get("detail", [missing]))


async def stream(arguments: Arguments) -> AsyncGenerator[Arguments]:
    """Stream the given `text` word by word, as language models do."""
    words = str(arguments.get("text", _TEXT)).split()
    for count in range(1, len(words) + 1):
        yield {"output": " ".join(words[:count]), "partial": count < len(words), "error": None}
        await asyncio.sleep(_SECONDS / len(words) / 10)
