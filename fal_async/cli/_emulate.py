"""The command ``emulate``: a platform on this machine, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import Any, Final, TypeAlias, cast

from fal_async.cli._problems import BadInputError, needs
from fal_async.cli._screen import Screen
from fal_async.emulator import Emulator

__all__ = ["emulate"]

_Runner: TypeAlias = Callable[..., Any]

#: The owner of an app that has no endpoint id of its own.
_OWNER: Final = "local"
_LONG: Final = 3600.0


def emulate(host: str, port: int, app: str | None) -> None:
    """Serve a platform for other processes.

    Args:
        host: The address to listen at.
        port: The port to listen at; 0 for a free one.
        app: What to serve, as ``module:attribute``: an ASGI app or a function, or a mapping of
            endpoint ids to such; ``None`` serves the endpoints of the demo.

    Raises:
        BadInputError: One of them cannot be used.
    """
    runners = _demo_runners() if app is None else _load(app)
    emulator = Emulator(host=host, port=port)
    with ExitStack() as stack:
        try:
            for endpoint_id, runner in runners.items():
                emulator.register(endpoint_id, runner)
            stack.enter_context(emulator)
        except ValueError as error:
            raise BadInputError(f"--app {app}: {error}") from error
        except OSError as error:
            reason = error.strerror or error
            raise BadInputError(f"cannot listen at {host}, port {port}: {reason}") from error
        _announce(emulator, runners)
        while True:
            time.sleep(_LONG)


def _announce(emulator: Emulator, runners: Mapping[str, _Runner]) -> None:
    screen = Screen(sys.stdout)
    screen.title(f"A platform at {emulator.url}", f"with {', '.join(runners)}; Ctrl-C ends it")
    screen.line()
    for name, value in emulator.environ.items():
        screen.line(f"export {name}={value}")
    screen.line(f"python -m fal_async subscribe {next(iter(runners))} prompt='a boat at dusk'")


def _demo_runners() -> Mapping[str, _Runner]:
    needs("PIL")
    from fal_async.cli import _studio

    return {_studio.PHOTO: _studio.photo, _studio.ECHO: _studio.echo}


def _load(app: str) -> Mapping[str, _Runner]:
    module_name, colon, attribute = app.partition(":")
    if not (colon and module_name and attribute):
        raise BadInputError(f"--app {app}: write MODULE:ATTRIBUTE")
    try:
        found: object = getattr(import_module(module_name), attribute)
    except Exception as error:  # importing runs any code
        raise BadInputError(f"--app {app}: {type(error).__name__}: {error}") from error
    if isinstance(found, Mapping):
        return cast("Mapping[str, _Runner]", found)
    if callable(found):
        return {f"{_OWNER}/{attribute}": found}
    raise BadInputError(f"--app {app} is a {type(found).__name__}, neither an app nor a mapping")
