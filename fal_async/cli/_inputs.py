"""The arguments of a model, as they are written on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fal_async._protocol.bodies import decode_json
from fal_async.cli._problems import BadInputError
from fal_async.cli._streams import read_stdin

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_arguments"]


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
        raise BadInputError(f"--input is not JSON: {error}") from error
    except OSError as error:
        raise BadInputError(f"--input {document}: {error.strerror or error}") from error
    if not isinstance(value, dict):
        raise BadInputError("--input must be a JSON object")
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
        raise BadInputError(f"{field!r} is neither KEY=TEXT nor KEY:=JSON")
    if not key.endswith(":"):
        return key, text
    try:
        return key[:-1], decode_json(text)
    except ValueError as error:
        raise BadInputError(f"{field!r} does not hold JSON: {error}") from error


def _check_text(argument: str) -> str:
    """Refuse bytes that are no text; Python makes lone surrogates of them."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise BadInputError(f"{argument!r} is not text in the encoding of this shell") from error
    return argument
