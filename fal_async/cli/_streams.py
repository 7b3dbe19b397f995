"""The standard streams, which may be missing, in any encoding, or broken."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from fal_async.cli._errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

__all__ = ["abandon_broken_streams", "check_stdout", "open_streams", "read_stdin"]


class _Nothing(io.RawIOBase):
    """A file that keeps nothing of what is written."""

    def writable(self) -> bool:
        return True

    def write(self, content: object, /) -> int:
        return len(memoryview(content))  # type: ignore[arg-type] # any buffer, says its base


class _Nowhere(io.TextIOWrapper):
    """A stream in the place of one that is missing."""

    def __init__(self) -> None:
        super().__init__(io.BufferedWriter(_Nothing()), encoding="utf-8")


def open_streams() -> None:
    """Let everything be printed: a question mark for what the encoding cannot express.

    Daemons, programs without a console, and shells that were told ``>&-`` have no streams.
    """
    sys.stdout = _usable(sys.stdout)
    sys.stderr = _usable(sys.stderr)


def _usable(stream: TextIO | None) -> TextIO:
    if stream is None:
        return _Nowhere()
    reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return stream


def check_stdout() -> None:
    """Check that an output can be written, before it is paid for.

    Raises:
        BadInputError: There is no stdout.
    """
    if isinstance(sys.stdout, _Nowhere):
        raise UsageError("stdout is closed, and the output would be lost: send it to a file")


def read_stdin() -> bytes:
    """Read all of stdin.

    Raises:
        BadInputError: There is no stdin.
        OSError: It cannot be read.
    """
    if sys.stdin is None:
        raise UsageError("stdin is closed, so there is nothing to read from it")
    return sys.stdin.buffer.read()


def abandon_broken_streams() -> None:
    """Keep the interpreter from complaining at its exit about what could not be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):  # some have no number, or are closed
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
