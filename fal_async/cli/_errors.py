"""What can be wrong with a call of the command line. Imports nothing that may be missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

__all__ = ["UsageError", "require_modules", "sanitize_line"]

_DISTRIBUTIONS: Final = {"PIL": "pillow"}


class UsageError(Exception):
    """The command was called in a wrong way; the message says what to change."""


def require_modules(*modules: str) -> None:
    """Check that optional dependencies are installed.

    Raises:
        BadInputError: Some are not; with the command that installs them.
    """
    missing = [_DISTRIBUTIONS.get(name, name) for name in modules if find_spec(name) is None]
    if missing:
        raise UsageError(f'{", ".join(missing)} missing: pip install "fal-async[demo]"')


def sanitize_line(text: str) -> str:
    """A text that stays in its line and gives a terminal no orders."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
