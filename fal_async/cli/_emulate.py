"""The command ``emulate``: a platform on this machine until Ctrl-C."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from fal_async.cli._console import Display
from fal_async.cli._errors import UsageError
from fal_async.emulator._serve import serve
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fal_async.emulator import Emulator

__all__ = ["emulate", "start_demo"]

_EXAMPLE: Final = "python -m fal_async subscribe demo/slow"
_PHOTO_EXAMPLE: Final = "python -m fal_async subscribe demo/photo prompt='a boat at dusk'"
_ENDPOINTS: Final = "demo/echo (also realtime), demo/slow, demo/fail, demo/stream, demo/socket"
_PHOTO: Final = "demo/photo (also a stream, and realtime)"


def emulate(
    host: str, port: int, app: str | None, *, key: str | None, allow_origins: Sequence[str]
) -> None:
    """Serve a platform for other processes.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 selects a free one.
        app: The app to serve, as ``module:attribute``. ``None`` serves demo endpoints.
        key: The API key to accept. ``None`` generates one.
        allow_origins: The origins of web pages that may call, besides those of this machine.

    Raises:
        UsageError: An argument is invalid, or the address is in use.
    """
    on_started = start_demo if app is None else _print_environment
    try:
        serve(
            app, host=host, port=port, key=key, allow_origins=allow_origins, on_started=on_started
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
