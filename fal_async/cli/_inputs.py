"""The arguments of a model, as they are written on a command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from fal_async.cli._problems import BadInputError

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
        value = orjson.loads(_content(document))
    except orjson.JSONDecodeError as error:
        raise BadInputError(f"--input is not JSON: {error}") from error
    except OSError as error:
        raise BadInputError(f"--input {document}: {error.strerror or error}") from error
    if not isinstance(value, dict):
        raise BadInputError("--input must be a JSON object")
    return cast("dict[str, Any]", value)


def _content(document: str) -> str | bytes:
    if document == "-":
        return sys.stdin.buffer.read()
    if document.startswith("@"):
        return Path(document[1:]).read_bytes()
    return document


def _read_field(field: str) -> tuple[str, Any]:
    key, equals, text = field.partition("=")
    if not equals or not key.strip(":"):
        raise BadInputError(f"{field!r} is neither KEY=TEXT nor KEY:=JSON")
    if not key.endswith(":"):
        return key, text
    try:
        return key[:-1], orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadInputError(f"{field!r} does not hold JSON: {error}") from error
