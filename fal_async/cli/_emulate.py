"""The command ``emulate``: a platform on this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async.cli._console import Display
from fal_async.cli._errors import UsageError
from fal_async.emulator import AppError, Emulator
from fal_async.emulator._fault_parser import parse_fault_text
from fal_async.errors import FalClientError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from types import FrameType

    from fal_async.emulator import Job, Socket

__all__ = ["add_demo_endpoints", "emulate", "load", "serve", "start_demo"]

_EXAMPLE: Final = "python -m fal_async subscribe demo/slow"
_PHOTO_EXAMPLE: Final = "python -m fal_async subscribe demo/photo prompt='a boat at dusk'"
_ENDPOINTS: Final = "demo/echo (also realtime), demo/slow, demo/fail, demo/stream, demo/socket"
_PHOTO: Final = "demo/photo (also a stream, and realtime)"

Arguments = dict[str, Any]

_STEPS: Final = 5
_SECONDS: Final = 2.0
_TEXT: Final = "the quick brown fox jumps over the lazy dog"


def emulate(
    host: str,
    port: int,
    app: str | None,
    *,
    key: str | None = None,
    allow_origins: Sequence[str] = (),
    concurrency: int | None = None,
    faults: Sequence[str] = (),
    public_url: str | None = None,
    verbose: bool = False,
) -> None:
    """Serve a platform for other processes.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 selects a free one.
        app: The app to serve, as ``module:attribute``. ``None`` serves demo endpoints.
        key: The API key to accept. ``None`` generates one.
        allow_origins: The origins of web pages that may call, besides those of this machine.
        concurrency: The maximum number of concurrent runs of the account. ``None`` for no limit.
        faults: Faults to schedule, as text such as ``route=submit,status=503,share=0.2``.
        public_url: The origin at which clients reach the platform. ``None`` for its address.
        verbose: Whether each request is written to stderr.

    Raises:
        UsageError: An argument is invalid, or the address is in use.
    """

    def print_endpoints(fal: Emulator) -> None:
        _print_environment(fal).note("Endpoints", ", ".join(fal.endpoints) or "none")

    if verbose:
        logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("fal_async.emulator").setLevel(logging.INFO)
    try:
        serve(
            app,
            host=host,
            port=port,
            key=key,
            allow_origins=allow_origins,
            concurrency=concurrency,
            faults=faults,
            public_url=public_url,
            on_started=start_demo if app is None else print_endpoints,
        )
    except FalClientError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot listen on {host}, port {port}: {reason}") from error
    except Exception as error:  # the app may raise anything
        raise UsageError(f"--app {app}: {type(error).__name__}: {error}") from error


def _print_environment(fal: Emulator) -> Display:
    display = Display(sys.stdout)
    display.title(f"A platform at {fal.url}", "Ctrl-C stops it. In another shell:")
    for name, value in fal.environ.items():
        display.line(f"export {name}={value}")
    return display


def start_demo(fal: Emulator) -> None:
    """Add the image app to a platform with demo endpoints, and print how to call them."""
    if find_spec("PIL") is None:
        example, endpoints = _EXAMPLE, _ENDPOINTS
    else:
        from fal_async.cli._demo.app import register_image_app

        register_image_app(fal)
        example, endpoints = _PHOTO_EXAMPLE, f"{_PHOTO}, {_ENDPOINTS}"
    display = _print_environment(fal)
    display.line(example)
    display.note("Endpoints", endpoints)


def serve(
    app: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    allow_origins: Sequence[str] = (),
    concurrency: int | None = None,
    faults: Sequence[str] = (),
    public_url: str | None = None,
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
        concurrency: The maximum number of concurrent runs of the account. ``None`` for no limit.
        faults: Faults to schedule, as text.
        public_url: The origin at which clients reach the emulator. ``None`` for its address.
        on_started: Called with the emulator once it listens.

    Raises:
        InvalidRequestError: `app` does not name such an object, it names an `Emulator` and a key,
            origins or a concurrency are given, or a fault is invalid.
        OSError: The emulator cannot listen on this address.
    """
    scheduled = [parse_fault_text(text) for text in faults]
    fal = load(app, key=key, allow_origins=allow_origins, concurrency=concurrency)
    for endpoint_id, fault in scheduled:
        fal.fail(endpoint_id, fault)
    stop = threading.Event()

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = signal.signal(signal.SIGTERM, on_sigterm)
    try:
        fal.start(host=host, port=port, public_url=public_url)
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


def load(
    app: str | None,
    *,
    key: str | None = None,
    allow_origins: Sequence[str] = (),
    concurrency: int | None = None,
) -> Emulator:
    """Return the emulator for `app`, not yet started.

    Raises:
        InvalidRequestError: `app` does not name a suitable object.
    """
    target = None if app is None else _import_object(app)
    if isinstance(target, Emulator):
        if key is not None or allow_origins or concurrency is not None:
            raise InvalidRequestError(
                f"cannot change key, allow_origins and concurrency of {app}: it is an Emulator; "
                "pass them to its constructor"
            )
        return target
    fal = Emulator(key=key, allow_origins=allow_origins, concurrency=concurrency)
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
