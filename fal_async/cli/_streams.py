"""The standard streams, which may be missing, broken, or in any encoding."""

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

__all__ = [
    "check_stdout",
    "read_stdin",
    "redirect_broken_streams",
    "replace_unusable_streams",
]


class _NullFile(io.RawIOBase):
    """A file that discards its content."""

    def writable(self) -> bool:
        return True

    def write(self, content: object, /) -> int:
        return len(memoryview(content))  # type: ignore[arg-type] # the base class allows any buffer


class _NullStream(io.TextIOWrapper):
    """A stream in place of a missing one."""

    def __init__(self) -> None:
        super().__init__(io.BufferedWriter(_NullFile()), encoding="utf-8")


def replace_unusable_streams() -> None:
    """Make every text printable: characters outside the encoding become question marks.

    Daemons, programs without a console and shells with ``>&-`` have no streams.
    """
    sys.stdout = _replace(sys.stdout)
    sys.stderr = _replace(sys.stderr)


def _replace(stream: TextIO | None) -> TextIO:
    if stream is None:
        return _NullStream()
    reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    return stream


def check_stdout() -> None:
    """Check that an output can be written, before the request is billed.

    Raises:
        UsageError: Stdout is closed.
    """
    if isinstance(sys.stdout, _NullStream):
        raise UsageError("stdout is closed and the output would be lost: redirect it to a file")


def read_stdin() -> bytes:
    """Read all of stdin.

    Raises:
        UsageError: Stdin is closed.
        OSError: Stdin cannot be read.
    """
    if sys.stdin is None:
        raise UsageError("cannot read the input: stdin is closed")
    return sys.stdin.buffer.read()


def redirect_broken_streams() -> None:
    """Redirect streams that cannot be flushed, so that the interpreter exits without a message."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):  # the stream has no descriptor or is closed
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
