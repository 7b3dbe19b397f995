"""The command ``emulate``: a platform on this machine, until Ctrl-C."""

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

__all__ = ["announce_demo", "emulate"]

_EXAMPLE: Final = "python -m fal_async subscribe demo/slow"
_PHOTO_EXAMPLE: Final = "python -m fal_async subscribe demo/photo prompt='a boat at dusk'"
_ENDPOINTS: Final = "demo/echo (also realtime), demo/slow, demo/fail, demo/stream, demo/socket"
_PHOTO: Final = "demo/photo (also a stream, and realtime)"


def emulate(
    host: str, port: int, app: str | None, *, key: str | None, allow_origins: Sequence[str]
) -> None:
    """Serve a platform for other processes.

    Args:
        host: The address to listen at.
        port: The port to listen at; 0 for a free one.
        app: What to serve, as ``module:attribute``; ``None`` for endpoints to play with.
        key: The API key that is accepted; ``None`` makes one.
        allow_origins: Origins of web pages that may call, besides those of this machine.

    Raises:
        BadInputError: One of them cannot be used.
    """
    announce = announce_demo if app is None else _announce
    try:
        serve(app, host=host, port=port, key=key, allow_origins=allow_origins, announce=announce)
    except FalClientError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot listen at {host}, port {port}: {reason}") from error
    except Exception as error:  # the app is any code
        raise UsageError(f"--app {app}: {type(error).__name__}: {error}") from error


def _announce(fal: Emulator) -> Display:
    screen = Display(sys.stdout)
    screen.title(f"A platform at {fal.url}", "Ctrl-C ends it. In another shell:")
    for name, value in fal.environ.items():
        screen.line(f"export {name}={value}")
    return screen


def announce_demo(fal: Emulator) -> None:
    """Tell of a platform with endpoints to play with, after adding the demo's own."""
    if find_spec("PIL") is None:
        example, endpoints = _EXAMPLE, _ENDPOINTS
    else:
        from fal_async.cli._demo.app import register_image_app

        register_image_app(fal)
        example, endpoints = _PHOTO_EXAMPLE, f"{_PHOTO}, {_ENDPOINTS}"
    screen = _announce(fal)
    screen.line(example)
    screen.note("Endpoints", endpoints)
