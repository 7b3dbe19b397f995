"""The rows of an output file, and the check that they are those of a journal."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from fal_async._protocol.serialization import decode_json
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fal_async.batch.entries import Entry
    from fal_async.batch.journal_store import JournalStore

__all__ = ["OutputRow", "check_rows", "has_line_end", "last_line", "parse_rows"]

#: The beginning of each row.
ROW_START: Final = b'{"index":'
#: The number of bytes that are read at once, from the end of a file.
BLOCK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class OutputRow:
    """A row of an output file.

    Attributes:
        key: The key of the input.
        index: The index of the input.
        request_id: The id of the job, or ``None``.
        line: The bytes of the row.
    """

    key: str
    index: int
    request_id: str | None
    line: bytes

    def is_of(self, entry: Entry) -> bool:
        """Return whether the row may be the outcome of the job of an entry."""
        return self.request_id is None or self.request_id == entry.request_id


def parse_rows(path: Path, lines: Iterable[bytes]) -> list[OutputRow]:
    """Parse the rows of an output, without what a crash has left of a last one.

    Raises:
        InvalidRequestError: A line is not a row of an output.
    """
    rows: list[OutputRow] = []
    for line in lines:
        try:
            row = cast("Mapping[str, Any]", decode_json(line))
            rows.append(OutputRow(str(row["key"]), row["index"], row["request_id"], line))
        except (ValueError, TypeError, LookupError) as error:
            if not (isinstance(error, ValueError) and _is_incomplete(line)):
                raise _foreign_error(path, "has lines that are not rows of a batch") from error
    return rows


def check_rows(
    path: Path,
    rows: Iterable[OutputRow],
    store: JournalStore,
    *,
    is_known: bool,
    may_forget: bool,
) -> None:
    """Check that rows are of a journal, before the file is changed.

    Args:
        path: The path of the output.
        rows: Some of its rows.
        store: The journal.
        is_known: Whether the journal has written the file. Otherwise its rows must also have
            the jobs of the journal, since equal inputs have the same keys in all journals.
        may_forget: Whether the journal may have forgotten inputs of these rows.

    Raises:
        InvalidRequestError: A row is not of the journal.
    """
    entries = store.find(list({row.key for row in rows}))
    for row in rows:
        entry = entries.get(row.key)
        is_own = may_forget if entry is None else is_known or row.is_of(entry)
        if not is_own:
            raise _foreign_error(path, "has rows that are not of the journal of this batch")


def has_line_end(file: BinaryIO, size: int) -> bool:
    """Return whether a line ends at this size of a file."""
    if size == 0:
        return True
    file.seek(size - 1)
    return file.read(1) == b"\n"


def last_line(file: BinaryIO, size: int) -> int:
    """Return the position of the last line within this size of a file."""
    end = max(0, size - 1)  # the end of the last line is not that of the line before
    while end > 0:
        start = max(0, end - BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _is_incomplete(line: bytes) -> bool:
    """Return whether a line may be what a crash has left of the last row."""
    is_start = line.startswith(ROW_START) or ROW_START.startswith(line)
    return not line.endswith(b"\n") and (is_start or not line.strip(b"\0"))


def _foreign_error(path: Path, reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"cannot continue the output {os.fspath(path)}: it {reason}, and would be overwritten; "
        "use another output, or remove the file"
    )
