"""Output for programs: JSON on stdout, coloured where it is a terminal."""

from __future__ import annotations

import sys

import orjson
from rich.console import Console

from fal_async.cli._problems import BadInputError

__all__ = ["emit"]


def emit(value: object) -> None:
    """Write an output: JSON with an indent of two spaces, or bytes as they are."""
    if isinstance(value, bytes):
        _emit_bytes(value)
        return
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2)
    if sys.stdout.isatty():
        Console(file=sys.stdout).print_json(text.decode(), indent=2)
    else:
        _emit_bytes(text + b"\n")


def _emit_bytes(content: bytes) -> None:
    if sys.stdout.isatty():
        raise BadInputError(
            f"the output is {len(content)} bytes that are no text: send stdout to a file"
        )
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
