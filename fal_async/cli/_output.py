"""Output for programs: JSON on stdout, coloured where it is a terminal."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from typing import Final

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from fal_async._protocol.bodies import encode_json

__all__ = ["emit"]

#: Orders for terminals that JSON leaves as they are.
_CONTROLS: Final = re.compile(r"[\x7f-\x9f]")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]")


def emit(value: object) -> None:
    """Write an output: JSON with an indent of two spaces, or bytes as they are.

    Terminals show no bytes: there they are saved in a file, and its name is told on stderr.

    Raises:
        OSError: It cannot be written.
    """
    try:
        _write(value)
    except BrokenPipeError:  # nobody wants it
        raise
    except OSError as error:
        request_id: str | None = getattr(value, "request_id", None)
        owner = "" if request_id is None else f" of request {request_id}"
        raise OSError(f"cannot write the output{owner}: {error.strerror or error}") from error


def _write(value: object) -> None:
    content = value if isinstance(value, bytes) else encode_json(value, indent=True) + b"\n"
    if not sys.stdout.isatty():
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
    elif isinstance(value, bytes):
        _save(value)
    else:
        _show(content.decode())
    sys.stdout.flush()


def _save(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(prefix="fal_async_", delete=False) as file:
        file.write(content)
    print(  # noqa: T201 - it is for people
        f"fal_async: the output is {len(content)} bytes that are no text, saved in {file.name}",
        file=sys.stderr,
    )


def _show(text: str) -> None:
    """Show JSON on a terminal, whose encoding may not be that of JSON."""
    try:
        text.encode(sys.stdout.encoding)
        unsuitable = _CONTROLS
    except UnicodeEncodeError:
        unsuitable = _NOT_ASCII
    text = unsuitable.sub(lambda found: json.dumps(found[0])[1:-1], text)
    highlighted = JSONHighlighter()(Text(text, end=""))
    Console(file=sys.stdout).print(highlighted, soft_wrap=True, end="")
