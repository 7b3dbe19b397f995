"""Arguments, handles and messages from the command line, files and stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fal_async._protocol.serialization import decode_json
from fal_async.cli._errors import UsageError
from fal_async.cli._streams import read_stdin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["read_arguments", "read_handle", "read_messages"]


def read_arguments(fields: Sequence[str], document: str | None) -> dict[str, Any]:
    """Return the arguments of a document, with the fields on top of them.

    Args:
        fields: The fields, each as ``key=text``, ``key:=json`` or ``key=@file``, which is uploaded.
        document: A JSON object, ``@`` and the name of a file with one, or ``-`` for stdin. ``None``
            is an empty document.

    Raises:
        UsageError: A field or the document cannot be read.
    """
    arguments = {} if document is None else _read_object(document, "--input")
    for field in fields:
        key, equals, text = _check_text(field).partition("=")
        if not equals or not key.strip(":"):
            raise UsageError(f"a field must be KEY=TEXT, KEY:=JSON or KEY=@FILE, got {field!r}")
        if key.endswith(":"):
            try:
                arguments[key.removesuffix(":")] = decode_json(text)
            except ValueError as error:
                raise UsageError(f"{field!r} does not contain JSON: {error}") from error
        elif text.startswith("@"):
            path = Path(text[1:])
            if not path.is_file():
                raise UsageError(
                    f"{field!r} names no file to upload; a text that begins with @ is given as "
                    "KEY:=JSON"
                )
            arguments[key] = path
        else:
            arguments[key] = text
    return arguments


def read_handle(endpoint: str | None, request_id: str | None) -> Mapping[str, str]:
    """Return the handle of a job.

    Args:
        endpoint: The endpoint id, if a request id is given. Otherwise the handle that ``submit``
            printed, ``@`` and the name of a file with it, or ``-`` for stdin. ``None`` reads stdin.
        request_id: The request id; ``None`` without one.

    Raises:
        UsageError: The handle cannot be read.
    """
    if endpoint is not None and request_id is not None:
        return {"application": endpoint, "request_id": request_id}
    if endpoint is None and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("a job is given as ENDPOINT REQUEST_ID, or by the handle on stdin")
    if endpoint is not None and not endpoint.lstrip().startswith(("{", "[", "@", "-")):
        raise UsageError(f"the REQUEST_ID of the job of {endpoint!r} is missing")
    handle = _read_object(endpoint or "-", "the handle")
    wrong = [name for name, value in handle.items() if not isinstance(value, str)]
    if wrong or not {"application", "request_id"} <= handle.keys():
        raise UsageError("the handle must be the JSON object that `submit` printed")
    return handle


def read_messages(lines: Iterator[bytes]) -> Iterator[Any]:
    """Decode messages, one JSON value a line; empty lines are skipped.

    Raises:
        UsageError: A line is not JSON.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield decode_json(line)
            except ValueError as error:
                raise UsageError(f"line {number} of stdin is not JSON: {error}") from error


def _read_object(document: str, name: str) -> dict[str, Any]:
    try:
        if document == "-":
            content: str | bytes = read_stdin()
        elif document.startswith("@"):
            content = Path(document[1:]).read_bytes()
        else:
            content = _check_text(document)
        if document == "-" and not content.strip():
            raise UsageError(f"{name} is missing: stdin is empty")
        value = decode_json(content)
    except ValueError as error:
        raise UsageError(f"{name} is not JSON: {error}") from error
    except OSError as error:
        raise UsageError(f"{name} {document}: {error.strerror or error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{name} must be a JSON object")
    return cast("dict[str, Any]", value)


def _check_text(argument: str) -> str:
    """Reject bytes outside the encoding, which Python decodes as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{argument!r} is not text in the encoding of this shell") from error
    return argument
