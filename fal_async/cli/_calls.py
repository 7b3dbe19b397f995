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


#: How deeply outputs may be nested: ten times as deeply as Python is used to.
_DEEPEST: Final = 10_000


def call(function: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Call one of the functions below; what cannot be understood of the output is written as it is.

    Raises:
        BadInputError: There is nowhere to write an output to.
    """
    check_stdout()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEEPEST))
    try:
        anyio.run(function, *arguments)
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
    """Put a job into the queue, tell how it comes along, and write its output."""
    async with AsyncClient() as client:
        with Display(sys.stderr).wait() as wait:
            output = await client.subscribe(
                endpoint,
                arguments,
                with_logs=True,
                on_queue_update=wait,
                client_timeout=timeout,
            )
        emit(output)


async def submit(endpoint: str, arguments: Mapping[str, Any]) -> None:
    """Put a job into the queue, and write its handle."""
    async with AsyncClient() as client:
        handle = await client.submit(endpoint, arguments)
        emit(handle.to_dict())


async def status(endpoint: str, request_id: str) -> None:
    """Write how a job stands."""
    async with AsyncClient() as client:
        emit(as_json(await client.status(endpoint, request_id, with_logs=True)))


async def result(endpoint: str, request_id: str) -> None:
    """Wait for a job, and write its output."""
    async with AsyncClient() as client:
        emit(await client.result(endpoint, request_id))


async def cancel(endpoint: str, request_id: str) -> None:
    """Cancel a job, and write what the platform says to it."""
    async with AsyncClient() as client:
        emit({"status": await client.cancel(endpoint, request_id)})


def read_arguments(fields: Sequence[str], document: str | None) -> dict[str, Any]:
    """The fields on top of the document.

    Args:
        fields: Each is ``key=text`` or ``key:=json``.
        document: A JSON object, ``@`` and the name of a file that holds one, or ``-`` for stdin;
            ``None`` for an empty one.

    Raises:
        BadInputError: One of them cannot be read.
    """
    arguments = {} if document is None else _read_document(document)
    return arguments | dict(map(_read_field, fields))


def _read_document(document: str) -> dict[str, Any]:
    try:
        value = decode_json(_content(document))
    except ValueError as error:
        raise UsageError(f"--input is not JSON: {error}") from error
    except OSError as error:
        raise UsageError(f"--input {document}: {error.strerror or error}") from error
    if not isinstance(value, dict):
        raise UsageError("--input must be a JSON object")
    return cast("dict[str, Any]", value)


def _content(document: str) -> str | bytes:
    if document == "-":
        return read_stdin()
    if document.startswith("@"):
        return Path(document[1:]).read_bytes()
    return _check_text(document)


def _read_field(field: str) -> tuple[str, Any]:
    key, equals, text = _check_text(field).partition("=")
    if not equals or not key.strip(":"):
        raise UsageError(f"{field!r} is neither KEY=TEXT nor KEY:=JSON")
    if not key.endswith(":"):
        return key, text
    try:
        return key[:-1], decode_json(text)
    except ValueError as error:
        raise UsageError(f"{field!r} does not hold JSON: {error}") from error


def _check_text(argument: str) -> str:
    """Refuse bytes that are no text; Python makes lone surrogates of them."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{argument!r} is not text in the encoding of this shell") from error
    return argument
