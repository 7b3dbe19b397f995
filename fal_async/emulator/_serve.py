"""The emulator in the foreground, for the command line."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fal_async.emulator._demo import add_demo_endpoints
from fal_async.emulator._emulator import Emulator
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from types import FrameType


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
    with _told_to_stop() as stop:
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
def _told_to_stop() -> Generator[threading.Event]:
    """An event that SIGTERM sets."""
    stop = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = signal.signal(signal.SIGTERM, tell)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
