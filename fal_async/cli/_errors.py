"""Usage errors, missing extras and lines for people. Imports no optional dependency."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from typing import Final

__all__ = [
    "Terminated",
    "UsageError",
    "name_options",
    "require_modules",
    "sanitize_line",
    "write_note",
]

_DISTRIBUTIONS: Final = {"PIL": "pillow", "rich_pixels": "rich-pixels"}
#: The extras of the command line and their modules.
_EXTRAS: Final = {"cli": {"typer", "rich"}, "emulator": {"starlette", "uvicorn"}}

#: A parameter with its value, as messages of the library name it.
_PARAMETER: Final = re.compile(r"\b([a-z_]+)='([a-z]+)'")
#: Advice with parameters that commands lack, and its replacement.
_ADVICE: Final = {", or open it with shared=True": "", "; set stop_after=None to go on": ""}


class Terminated(BaseException):
    """The process received SIGTERM."""


class UsageError(Exception):
    """The command line is invalid; the message says what to change."""


def require_modules(*modules: str) -> None:
    """Check that optional dependencies are installed.

    Raises:
        UsageError: Modules are missing. The message contains the command that installs them.
    """
    missing = {name for name in modules if find_spec(name) is None}
    if missing:
        names = ", ".join(_DISTRIBUTIONS.get(name, name) for name in modules if name in missing)
        extra = next((extra for extra, own in _EXTRAS.items() if missing <= own), "demo")
        raise UsageError(f'{names} missing: pip install "fal-async[{extra}]"')


def name_options(text: str) -> str:
    """Return a message with the options of commands in place of parameters of functions."""
    for advice, replacement in _ADVICE.items():
        text = text.replace(advice, replacement)
    return _PARAMETER.sub(lambda match: f"--{match[1].replace('_', '-')} {match[2]}", text)


def sanitize_line(text: str) -> str:
    """Return a text as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def write_note(text: str) -> None:
    """Write a line to stderr, for people.

    Raises:
        OSError: The line cannot be written.
    """
    print(f"fal_async: {sanitize_line(text)}", file=sys.stderr)  # noqa: T201 -- for people
