"""The output of commands: JSON, event lines, saved files and notes."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from fal_async import Result, encode
from fal_async._files.encode import media_type
from fal_async._protocol.serialization import encode_json
from fal_async.cli._errors import write_note

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MessageFiles", "Output", "emit", "emit_line"]

#: Control characters that JSON leaves unescaped.
_CONTROL: Final = re.compile(r"[\x7f-\x9f]")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]")


@dataclass(frozen=True, slots=True)
class Output:
    """The output options of a command.

    Attributes:
        save: The folder to save the files of outputs in; ``None`` saves none.
        quiet: Whether to write no notes and no progress to stderr.
        events: Whether to write events to stdout, one JSON object a line, instead of the output.
    """

    save: Path | None = None
    quiet: bool = False
    events: bool = False

    def note(self, text: str) -> None:
        """Write a line to stderr, for people."""
        if not self.quiet:
            write_note(text)

    def event(self, name: str, **fields: object) -> None:
        """Write an event to stdout, if events are wanted."""
        if self.events:
            emit_line({"event": name, **fields})

    def line(self, text: str, event: str, **fields: object) -> None:
        """Write a line to stdout, or if events are wanted an event instead."""
        if self.events:
            self.event(event, **fields)
        else:
            print(text)  # noqa: T201 -- the output of the command

    async def finish(self, output: object) -> None:
        """Save the files of an output and write the output.

        Raises:
            OSError: The output or a file cannot be written.
        """
        if self.events:
            self.event("output", request_id=getattr(output, "request_id", None), output=output)
        else:
            emit(output)
        if self.save is None or not isinstance(output, Result):
            return
        self.save.mkdir(parents=True, exist_ok=True)
        for file in cast("Result", output).files():
            path = await file.save(self.save)
            self.event("file", path=str(path), url=file.url)
            self.note(f"saved {path}")


def emit(output: object) -> None:
    """Write an output to stdout: JSON with an indent of two spaces, or bytes as they are.

    On a terminal, bytes are saved to a file instead, and stderr shows its name.

    Raises:
        OSError: The output cannot be written.
    """
    content = output if isinstance(output, bytes) else encode_json(output, indent=True) + b"\n"
    try:
        if not sys.stdout.isatty():
            sys.stdout.flush()
            sys.stdout.buffer.write(content)
        elif isinstance(output, bytes):
            with tempfile.NamedTemporaryFile(prefix="fal_async_", delete=False) as file:
                file.write(content)
            write_note(f"the output is {len(content)} bytes of binary data, saved in {file.name}")
        else:
            _print_json(content.decode())
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout has exited
        raise
    except OSError as error:
        request_id: str | None = getattr(output, "request_id", None)
        owner = "" if request_id is None else f" of request {request_id}"
        raise OSError(f"cannot write the output{owner}: {error.strerror or error}") from error


def emit_line(value: object) -> None:
    """Write a value to stdout as one line of JSON, at once.

    Raises:
        OSError: The line cannot be written.
    """
    sys.stdout.flush()
    sys.stdout.buffer.write(encode_json(value) + b"\n")
    sys.stdout.buffer.flush()


def _print_json(text: str) -> None:
    """Print JSON on a terminal, with escapes where its encoding has no such characters."""
    try:
        text.encode(sys.stdout.encoding)
        to_escape = _CONTROL
    except UnicodeEncodeError:
        to_escape = _NOT_ASCII
    text = to_escape.sub(lambda found: json.dumps(found[0])[1:-1], text)
    highlighted = JSONHighlighter()(Text(text, end=""))
    Console(file=sys.stdout).print(highlighted, soft_wrap=True, end="")


#: The first bytes of common formats, and the suffixes of their files.
_FORMATS: Final = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif"}


class MessageFiles:
    """The binary values of messages: files in a folder, or data URLs.

    Args:
        folder: The folder to save them in; ``None`` makes data URLs.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._count = 0

    def replace(self, value: Any) -> Any:
        """Return a message whose binary values are paths of files or data URLs.

        Raises:
            OSError: A file cannot be written.
        """
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            return {key: self.replace(item) for key, item in fields.items()}
        if isinstance(value, list | tuple):
            return [self.replace(item) for item in cast("list[Any]", value)]
        if not isinstance(value, bytes):
            return value
        suffix = next((end for start, end in _FORMATS.items() if value.startswith(start)), ".bin")
        if self._folder is None:
            return encode(value, media_type(suffix))
        self._folder.mkdir(parents=True, exist_ok=True)
        self._count += 1
        path = self._folder / f"{self._count:04}{suffix}"
        path.write_bytes(value)
        return str(path)
