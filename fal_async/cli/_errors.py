"""Usage errors and missing extras. Imports no optional dependency."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

__all__ = ["UsageError", "require_modules", "sanitize_line"]

_DISTRIBUTIONS: Final = {"PIL": "pillow", "rich_pixels": "rich-pixels"}


class UsageError(Exception):
    """The command line is invalid; the message says what to change."""


def require_modules(*modules: str) -> None:
    """Check that optional dependencies are installed.

    Raises:
        UsageError: Modules are missing. The message contains the command that installs them.
    """
    missing = [_DISTRIBUTIONS.get(name, name) for name in modules if find_spec(name) is None]
    if missing:
        raise UsageError(f'{", ".join(missing)} missing: pip install "fal-async[demo]"')


def sanitize_line(text: str) -> str:
    """Return a text as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
