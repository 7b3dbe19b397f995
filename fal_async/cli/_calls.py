"""The call commands: JSON in, JSON out."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from fal_async import AsyncClient
from fal_async._protocol.serialization import decode_json, encode_json
from fal_async.cli._console import Display, as_json
from fal_async.cli._errors import UsageError
from fal_async.cli._streams import check_stdout, read_stdin
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

__all__ = [
    "call",
    "cancel",
    "emit",
    "read_arguments",
    "result",
    "run",
    "status",
    "submit",
    "subscribe",
]

#: The recursion limit of a command: outputs may be nested more deeply than Python's limit allows.
_RECURSION_LIMIT: Final = 10_000
#: Control characters that JSON leaves unescaped.
_CONTROL: Final = re.compile(r"[\x7f-\x9f]")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]")


def call(command: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Run one of the commands below; write the body of an invalid response as it is.

    Raises:
        UsageError: Stdout is closed, so that the output would be lost.
    """
    check_stdout()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION_LIMIT))
    try:
        anyio.run(command, *arguments)
    except InvalidResponseError as error:
        if error.body:
            emit(error.body)
        raise
    finally:
        sys.setrecursionlimit(limit)


async def run(endpoint: str, arguments: Mapping[str, Any], timeout: float | None) -> None:
    """Call an endpoint directly, and write its output."""
    async with AsyncClient() as client:
        emit(await client.run(endpoint, arguments, timeout=timeout))


async def subscribe(endpoint: str, arguments: Mapping[str, Any], timeout: float | None) -> None:
    """Put a job into the queue, show its progress on stderr, and write its output."""
    async with AsyncClient() as client:
        with Display(sys.stderr).progress() as progress:
            output = await client.subscribe(
                endpoint,
                arguments,
                with_logs=True,
                on_queue_update=progress,
                client_timeout=timeout,
            )
        emit(output)


async def submit(endpoint: str, arguments: Mapping[str, Any]) -> None:
    """Put a job into the queue, and write its handle."""
    async with AsyncClient() as client:
        handle = await client.submit(endpoint, arguments)
        emit(handle.to_dict())


async def status(endpoint: str, request_id: str) -> None:
    """Write the status of a job."""
    async with AsyncClient() as client:
        emit(as_json(await client.status(endpoint, request_id, with_logs=True)))


async def result(endpoint: str, request_id: str) -> None:
    """Wait for a job, and write its output."""
    async with AsyncClient() as client:
        emit(await client.result(endpoint, request_id))


async def cancel(endpoint: str, request_id: str) -> None:
    """Cancel a job, and write the outcome."""
    async with AsyncClient() as client:
        emit({"status": await client.cancel(endpoint, request_id)})


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
            message = f"the output is {len(content)} bytes of binary data, saved in {file.name}"
            print(f"fal_async: {message}", file=sys.stderr)  # noqa: T201 -- for people
        else:
            _print_json(content.decode())
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout has exited
        raise
    except OSError as error:
        request_id: str | None = getattr(output, "request_id", None)
        owner = "" if request_id is None else f" of request {request_id}"
        raise OSError(f"cannot write the output{owner}: {error.strerror or error}") from error


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


def read_arguments(fields: Sequence[str], document: str | None) -> dict[str, Any]:
    """Return the arguments of a document, with the fields on top of them.

    Args:
        fields: The fields, each as ``key=text`` or ``key:=json``.
        document: A JSON object, ``@`` and the name of a file with one, or ``-`` for stdin. ``None``
            is an empty document.

    Raises:
        UsageError: A field or the document cannot be read.
    """
    arguments = {} if document is None else _read_document(document)
    for field in fields:
        key, equals, text = _check_text(field).partition("=")
        if not equals or not key.strip(":"):
            raise UsageError(f"a field must be KEY=TEXT or KEY:=JSON, got {field!r}")
        try:
            arguments[key.removesuffix(":")] = decode_json(text) if key.endswith(":") else text
        except ValueError as error:
            raise UsageError(f"{field!r} does not contain JSON: {error}") from error
    return arguments


def _read_document(document: str) -> dict[str, Any]:
    try:
        if document == "-":
            content: str | bytes = read_stdin()
        elif document.startswith("@"):
            content = Path(document[1:]).read_bytes()
        else:
            content = _check_text(document)
        value = decode_json(content)
    except ValueError as error:
        raise UsageError(f"--input is not JSON: {error}") from error
    except OSError as error:
        raise UsageError(f"--input {document}: {error.strerror or error}") from error
    if not isinstance(value, dict):
        raise UsageError("--input must be a JSON object")
    return cast("dict[str, Any]", value)


def _check_text(argument: str) -> str:
    """Reject bytes outside the encoding, which Python decodes as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{argument!r} is not text in the encoding of this shell") from error
    return argument
