"""Inputs of a batch: rows of files and iterables, with their arguments and keys."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sized
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from fal_async._client.result import Result
from fal_async._core.checks import describe
from fal_async._net.threads import Work, run_in_thread
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.serialization import decode_json
from fal_async.batch.entries import decode_output
from fal_async.batch.jobs import ErrorFacts, Job, StoredJob
from fal_async.batch.keys import KEY_SIZE, arguments_digest, check_key
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.entries import Entry

__all__ = [
    "Inputs",
    "Item",
    "Row",
    "count_rows",
    "iterate_chunks",
    "iterate_rows",
    "parse_lines",
    "read_rows",
]

#: One input: names and values.
Row: TypeAlias = Mapping[str, Any]
#: The inputs of a batch: rows, or the path of a file.
Inputs: TypeAlias = Iterable[Row] | AsyncIterable[Row] | str | os.PathLike[str]

#: The size from which the journal holds an output until the consumer takes it, in bytes.
LARGE_OUTPUT: Final = 1_000_000
#: The number of inputs that are read, and looked up in the journal, at once.
CHUNK: Final = 32


@dataclass(slots=True, eq=False)
class Item:
    """One input on its way through a batch.

    Attributes:
        index: The index of the input.
        row: The input.
        arguments: The arguments of the job.
        application: The endpoint id.
        digest: The digest of the arguments.
        key: The key in the journal.
        entry: The entry that the journal had, or ``None``.
        attempts: The number of jobs that were started.
        started_at: The time of the latest submit, in seconds since 1970.
        submitted_by: The latest time at which the platform may have received that submit, if its
            outcome is unknown, in seconds since 1970.
        resumed: Whether an earlier run has started the job.
        sent: The arguments with the URLs of uploaded files; ``None`` before the upload.
        repeats_earlier: Whether the input equals an earlier one.
        is_changed: Whether the content differs from what the journal has recorded, so that another
            job is started.
        is_withdrawn: Whether the job is being cancelled, so that another one is started later.
        is_written: Whether an earlier run has written a row of the input.
        repeats: Later inputs that have the outcome of this one.
    """

    index: int
    row: Row
    arguments: Mapping[str, Any]
    application: str
    digest: bytes
    key: str
    entry: Entry | None = None
    attempts: int = 0
    started_at: float = 0.0
    submitted_by: float = 0.0
    resumed: bool = False
    sent: Any = None
    repeats_earlier: bool = False
    is_changed: bool = False
    is_withdrawn: bool = False
    is_written: bool = False
    repeats: list[Item] = field(default_factory=list["Item"])

    def make_job(self, *, size: int = 0, **outcome: Any) -> Job:
        """Make the job of the input, with its outcome.

        Args:
            size: The size of the output in the journal, in bytes; 0 if it has none.
            outcome: The attributes of the job.
        """
        kind = StoredJob if size > LARGE_OUTPUT else Job
        return kind(
            index=self.index, key=self.key, row=self.row, arguments=self.arguments, **outcome
        )

    def make_known_job(
        self, entry: Entry, dispatcher: Dispatcher, *, ok: bool, body: bytes | None, resumed: bool
    ) -> Job:
        """Make the job of an input whose outcome the journal has.

        Args:
            entry: The entry of the journal.
            dispatcher: Downloads the files of the output.
            ok: Whether the job has succeeded.
            body: The output as JSON, or ``None``.
            resumed: Whether an earlier run has started the job.
        """
        output: object = None if body is None else decode_output(body)
        result: Result | None = None
        if isinstance(output, dict):
            result = Result(
                cast("dict[str, Any]", output),
                request_id=entry.request_id,
                billable_units=entry.units,
                cost=entry.cost,
            )
            result._dispatcher = dispatcher
        return self.make_job(
            size=len(body or b""),
            ok=ok,
            output=output,
            result=result,
            files=tuple(Path(path) for path in entry.files),
            error=None if ok or entry.error is None else ErrorFacts.from_dict(entry.error),
            request_id=entry.request_id,
            units=entry.units,
            cost=entry.cost,
            seconds=(entry.ended_at or entry.tried_at) - entry.tried_at,
            attempts=entry.attempts,
            resumed=resumed,
        )


class ItemFactory:
    """Makes items of rows: selects the endpoint and the arguments, and computes the keys.

    Args:
        application: The endpoint id, or a function of the row that returns it.
        path: The path within the app.
        arguments: A mapping of columns to arguments, or a function of the row. ``None`` uses the
            row itself.
        key: A column, or a function of the row. ``None`` uses the content.
        repeats_share_key: Whether equal rows have the same key.

    Attributes:
        repeated: The number of rows that equal an earlier one.
    """

    def __init__(
        self,
        application: str | Callable[[Row], str],
        path: str = "",
        arguments: Mapping[str, str] | Callable[[Row], Mapping[str, Any]] | None = None,
        key: str | Callable[[Row], str] | None = None,
        *,
        repeats_share_key: bool = False,
    ) -> None:
        self._repeats_share_key = repeats_share_key
        self._application = application
        self._path = path
        self._arguments = arguments
        self._key = key
        self._indexes = itertools.count()
        self._seen: dict[str, int] = {}
        self.repeated: int = 0

    async def make(self, rows: list[Row]) -> list[Item]:
        """Make the items of some rows. Files in them are read in a worker thread.

        Raises:
            InvalidRequestError: A row has no such column, or cannot be sent.
        """
        select = self._application
        applications = [
            str(parse_endpoint(select(row) if callable(select) else select)) for row in rows
        ]
        arguments = [self._select_arguments(row) for row in rows]

        def compute_digests() -> list[bytes]:
            suffix = f"/{self._path}" if self._path else ""
            paths = [f"{application}{suffix}" for application in applications]
            return list(map(arguments_digest, paths, arguments))

        digests = await run_in_thread(compute_digests, Work.FILES)
        items: list[Item] = []
        for row, application, given, digest in zip(
            rows, applications, arguments, digests, strict=True
        ):
            key, ordinal = self._next_key(row, digest)
            item = Item(next(self._indexes), row, given, application, digest, key)
            item.repeats_earlier = ordinal > 1
            items.append(item)
        return items

    def _select_arguments(self, row: Row) -> Mapping[str, Any]:
        if not isinstance(cast("object", row), Mapping):
            raise InvalidRequestError(f"each input must be a mapping, got {describe(row)}")
        if self._arguments is None:
            return row
        if callable(self._arguments):
            return self._arguments(row)
        try:
            return {name: row[column] for name, column in self._arguments.items()}
        except KeyError as error:
            raise InvalidRequestError(
                f"arguments must map columns of the inputs; there is no column {error}: the input "
                f"has {', '.join(map(repr, row))}"
            ) from error

    def _next_key(self, row: Row, digest: bytes) -> tuple[str, int]:
        """Return the key of a row, and its number among the rows of that key."""
        if self._key is None:
            key = digest.hex()[:KEY_SIZE]
        elif callable(self._key):
            key = check_key(self._key(row))
        elif self._key in row:
            key = check_key(row[self._key])
        else:
            raise InvalidRequestError(
                f"key must be a column of the inputs, got {self._key!r}: the input has "
                f"{', '.join(map(repr, row))}"
            )
        self._seen[key] = ordinal = self._seen.get(key, 0) + 1
        self.repeated += ordinal > 1
        is_own = ordinal > 1 and not self._repeats_share_key
        return f"{key}#{ordinal}" if is_own else key, ordinal


async def iterate_chunks(inputs: Inputs) -> AsyncGenerator[list[Row], None]:
    """Read the inputs lazily, some at a time. Files are read in worker threads.

    Raises:
        InvalidRequestError: The inputs are not iterable, or a file cannot be read.
    """
    if isinstance(inputs, str | os.PathLike):
        rows = read_rows(Path(inputs))
        while chunk := await run_in_thread(lambda: list(itertools.islice(rows, CHUNK)), Work.FILES):
            yield chunk
    elif isinstance(inputs, AsyncIterable):
        async for row in inputs:
            yield [row]
    elif isinstance(cast("object", inputs), Iterable) and not isinstance(inputs, Mapping | bytes):
        given = iter(inputs)
        while chunk := list(itertools.islice(given, CHUNK)):
            yield chunk
    else:
        raise InvalidRequestError(
            f"inputs must be rows or the path of a file, got {describe(cast('object', inputs))}"
        )


def count_rows(inputs: Inputs) -> int | None:
    """Return the number of inputs, and check that a file can be read; ``None`` if unknown.

    Raises:
        InvalidRequestError: A line of a file is not a row. The error has its number.
    """
    if isinstance(inputs, str | os.PathLike):
        return sum(1 for _ in read_rows(Path(inputs)))
    return len(inputs) if isinstance(inputs, Sized) else None


def read_rows(path: Path) -> Iterator[Row]:
    """Read the rows of a file: JSON lines, CSV with a header, or Parquet, by its suffix.

    Raises:
        InvalidRequestError: The file cannot be read, or a line is not a row.
    """
    return (row for _, row in iterate_rows(path))


def iterate_rows(
    path: Path, on_invalid: Callable[[str], object] | None = None
) -> Iterator[tuple[int, Row]]:
    """Read the rows of a file with the numbers of their lines, or those of rows in Parquet.

    Args:
        path: The path of the file.
        on_invalid: Called with a message about each line that is not a row, which is left out;
            ``None`` raises it.

    Raises:
        InvalidRequestError: The file cannot be read, or a line is not a row.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in {".jsonl", ".ndjson"}:
            with path.open("rb") as lines:
                yield from parse_lines(lines, str(path), on_invalid)
        elif suffix == ".csv":
            yield from _read_csv(path, on_invalid)
        elif suffix == ".parquet":
            yield from _read_parquet(path)
        else:
            raise InvalidRequestError(
                f"inputs must be a .jsonl, .csv or .parquet file, got {os.fspath(path)!r}"
            )
    except OSError as error:
        raise InvalidRequestError(
            f"cannot read the inputs {path}: {error.strerror or error}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequestError(f"cannot read the inputs {path}: {error}") from error


def parse_lines(
    lines: Iterable[bytes], name: str, on_invalid: Callable[[str], object] | None = None
) -> Iterator[tuple[int, Row]]:
    """Parse JSON lines into rows with their line numbers. Empty lines are ignored.

    Args:
        lines: The lines.
        name: The name of the file, for messages.
        on_invalid: See `iterate_rows`.
    """
    report = on_invalid or _raise
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = decode_json(line)
        except ValueError as error:
            report(f"{name}, line {number}, is not JSON: {error}")
            continue
        if isinstance(row, dict):
            yield number, cast("Row", row)
        else:
            report(f"{name}, line {number}, must be a JSON object")


def _read_csv(path: Path, on_invalid: Callable[[str], object] | None) -> Iterator[tuple[int, Row]]:
    report = on_invalid or _raise
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if None in row or None in row.values():
                report(f"{path}, line {reader.line_num}, must have the columns of the header")
            else:
                yield reader.line_num, row


def _read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        parquet: Any = import_module("pyarrow.parquet")  # few programs need it
    except ImportError as error:
        raise InvalidRequestError(
            f"cannot read {path}: pyarrow is not installed; install it, or use .jsonl"
        ) from error
    numbers = itertools.count(1)
    for batch in parquet.ParquetFile(path).iter_batches(batch_size=CHUNK):
        yield from zip(numbers, batch.to_pylist())  # noqa: B905 -- the numbers do not end


def _raise(message: str) -> None:
    raise InvalidRequestError(message)
