"""The tables of a journal: what each version of the schema has added, and the values of rows."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from fal_async._protocol.serialization import decode_json, encode_json
from fal_async.batch.entries import Entry, KnownUpload, Note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fal_async._files.attachment_uploads import UploadContent
    from fal_async.batch.entries import Change

__all__ = ["SCHEMA", "SCHEMA_VERSION", "identify", "row_order", "to_column", "to_entry"]

#: Version 1. Outputs are apart from the entries, so that the entries stay small.
_TABLES: Final = """
CREATE TABLE runs (
    number {serial},
    name TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL,
    pid BIGINT NOT NULL,
    since {double} NOT NULL,
    exclusive INTEGER NOT NULL
);
CREATE TABLE endpoints (
    id {serial},
    application TEXT NOT NULL UNIQUE
);
CREATE TABLE inputs (
    key TEXT PRIMARY KEY,
    endpoint BIGINT NOT NULL REFERENCES endpoints (id),
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    run BIGINT NOT NULL REFERENCES runs (number),
    position BIGINT NOT NULL,
    digest {bytes} NOT NULL,
    request_id TEXT,
    handle TEXT,
    tried_at {double} NOT NULL,
    ended_at {double},
    units {double},
    cost TEXT,
    error TEXT,
    files TEXT,
    is_written INTEGER NOT NULL DEFAULT 0
) {options};
CREATE TABLE outputs (
    key TEXT PRIMARY KEY REFERENCES inputs (key) ON DELETE CASCADE,
    body {bytes} NOT NULL
);
CREATE TABLE notes (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
"""

#: Version 2: the content that was uploaded for arguments.
_UPLOADS: Final = """
CREATE TABLE uploads (
    sha256 {bytes} NOT NULL,
    size BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    lifecycle TEXT NOT NULL,
    url TEXT NOT NULL,
    uploaded_at {double} NOT NULL,
    expires_at {double},
    PRIMARY KEY (sha256, size, content_type, lifecycle)
);
"""

#: The statements that make each version of the one before, with the types of the database.
SCHEMA: Final = (_TABLES, _UPLOADS)
SCHEMA_VERSION: Final = len(SCHEMA)


def identify(content: UploadContent) -> dict[str, Any]:
    """Return the columns that identify a content. Its file name does not matter to a job."""
    names = ("sha256", "size", "content_type", "lifecycle")
    return {name: getattr(content, name) for name in names}


def row_order(change: Change) -> tuple[str, str]:
    """Return a key that orders changes by their rows: the table, and the key in it."""
    if isinstance(change, Note):
        return "notes", change.name
    if isinstance(change, KnownUpload):
        return "uploads", change.content.sha256.hex()
    return "inputs", change.key


def to_column(name: str, value: Any) -> Any:
    """Return a value of an input as its column has it."""
    if name in {"error", "files", "handle"} and value is not None:
        return encode_json(value).decode()
    if name == "cost" and value is not None:
        return str(value)
    return int(bool(value)) if name == "is_written" else value


def to_entry(row: Sequence[Any]) -> Entry:
    """Return the entry of an input by its columns."""
    return Entry(
        key=row[0],
        application=row[1],
        state=row[2],
        attempts=row[3],
        run=row[4],
        position=row[5],
        digest=bytes(row[6]),
        request_id=row[7],
        handle=None if row[8] is None else decode_json(row[8]),
        tried_at=row[9],
        ended_at=row[10],
        units=row[11],
        cost=None if row[12] is None else Decimal(row[12]),
        error=None if row[13] is None else decode_json(row[13]),
        files=() if row[14] is None else tuple(decode_json(row[14])),
        is_written=bool(row[15]),
    )
