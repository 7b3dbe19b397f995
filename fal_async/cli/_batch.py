"""The command ``batch``: a job for each row of a file, and the journal of them."""

from __future__ import annotations

import itertools
import signal
import sys
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from fal_async import AsyncClient, Journal
from fal_async._net.files import write_file
from fal_async._net.tasks import open_task_group
from fal_async._protocol.serialization import decode_json, encode_json
from fal_async.batch.inputs import ItemFactory, iterate_rows, parse_lines
from fal_async.batch.journal import POSTGRES
from fal_async.batch.postgres import without_password
from fal_async.cli._errors import UsageError, sanitize_line, write_note
from fal_async.cli._input import read_arguments
from fal_async.cli._schemas import InputSchema
from fal_async.cli._streams import check_stdout, read_stdin
from fal_async.errors import FalClientError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fal_async import Price
    from fal_async.batch.batch import Batch
    from fal_async.batch.entries import State
    from fal_async.batch.inputs import Row
    from fal_async.batch.jobs import BatchSummary, Progress

__all__ = ["BatchCommand", "cancel", "export", "run", "sort", "status"]

_FAILED: Final = 1
_BUDGET: Final = 3
_FATAL: Final = 4
_UNSURE: Final = 5

#: The states that `--retry` selects.
RETRIED: Final[Mapping[str, tuple[State, ...]]] = {
    "failed": ("failed",),
    "lost": ("lost",),
    "unsure": ("unsure", "submitting"),
    "all": ("failed", "lost", "unsure", "submitting"),
}


@dataclass(frozen=True, kw_only=True)
class BatchCommand:
    """The arguments of the command.

    Attributes:
        source: The path of the rows; ``-`` is stdin.
        endpoint: The endpoint id.
        output: The path of the output, or ``None`` for stdout.
        journal: The path or URL of the journal; ``None`` is beside the output.
        no_journal: Whether to keep none.
        fields: The same arguments for every row, as ``key=text`` or ``key:=json``.
        columns: The columns of the arguments, as ``argument=column``, with commas between.
        limit: The number of rows; ``None`` for all.
        max_price: The highest price of a unit, or ``None``.
        retry: The outcomes of earlier runs to replace, or ``None``.
        skip_bad_lines: Whether lines that are not rows are named and left out.
        quiet: Whether to write nothing but errors to stderr.
        json_progress: Whether to write the progress as JSON lines to stderr.
        options: Options of `AsyncClient.batch`.
    """

    source: str
    endpoint: str
    output: Path | None
    journal: str | None
    no_journal: bool
    fields: tuple[str, ...]
    columns: str | None
    limit: int | None
    max_price: float | None
    retry: str | None
    skip_bad_lines: bool
    quiet: bool
    json_progress: bool
    options: dict[str, Any]

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Read the rows with the numbers of their lines, and with the fields for every row."""
        fixed = read_arguments(self.fields, None)
        skip = _warn if self.skip_bad_lines else None
        if self.source == "-":
            rows = parse_lines(read_stdin().splitlines(), "stdin", skip)
        else:
            rows = iterate_rows(Path(self.source), skip)
        for number, row in itertools.islice(rows, self.limit):
            yield number, {**row, **fixed} if self.columns is None else row

    def journal_path(self) -> str | None:
        """Return the path or URL of the journal."""
        if self.no_journal:
            return None
        if self.journal is not None:
            return self.journal
        if self.output is None and self.source == "-":
            raise UsageError(
                "--journal or --no-journal is needed for rows of stdin without --output"
            )
        return f"{self.output or self.source}.journal.db"

    def arguments(self) -> Any:
        """Return the `arguments` option: columns, with the fields for every row."""
        if self.columns is None:
            return None
        pairs: dict[str, str] = {}
        for part in self.columns.split(","):
            name, _, column = part.partition("=")
            pairs[name] = column or name
        fixed = read_arguments(self.fields, None)

        def select(row: Row) -> Mapping[str, Any]:
            try:
                return {**{name: row[column] for name, column in pairs.items()}, **fixed}
            except KeyError as error:
                raise InvalidRequestError(
                    f"--arguments must name columns; there is no column {error}"
                ) from error

        return select


def run(command: BatchCommand, *, dry_run: bool) -> int:
    """Run a batch, or with `dry_run` count, price and check its rows; return the exit status."""
    check_stdout()
    return anyio.run(_check if dry_run else _run, command)


async def _check(command: BatchCommand) -> int:
    """Write the number of rows and the price, and which rows the model would refuse.

    No job is started.
    """
    factory = ItemFactory(command.endpoint, arguments=command.arguments())
    rows = list(command.rows())
    items = await factory.make([row for _, row in rows])
    async with AsyncClient() as client:
        try:
            prices = await client.models.prices(command.endpoint)
        except FalClientError:
            prices = {}
        try:
            schema = InputSchema(await client.models.schema(command.endpoint))
        except FalClientError as error:
            schema = None
            write_note(f"the rows are not checked: {error}")
    refused = 0
    for (number, _), item in zip(rows, items, strict=True):
        errors = [] if schema is None else schema.errors(item.arguments)
        refused += bool(errors)
        if errors:
            _write_line(f"{command.source}, line {number}: {sanitize_line('; '.join(errors))}")
    parts = [f"{len(rows):,} rows", f"{factory.repeated:,} repeat others"]
    if schema is not None:
        parts.append(f"{refused:,} would be refused")
    price = prices.get(command.endpoint)
    cost = "the price is unknown" if price is None else _describe_price(price)
    sys.stdout.write(f"{', '.join(parts)}; {cost}\n")
    return _FAILED if refused else 0


async def _run(command: BatchCommand) -> int:
    journal = command.journal_path()
    if journal is not None and command.retry is not None:
        _forget(journal, command.retry)
    rows = (
        [row for _, row in command.rows()]
        if command.limit or command.source == "-" or command.fields or command.skip_bad_lines
        else command.source
    )
    progress: Any = not command.quiet
    if command.json_progress:
        progress = _write_progress
    async with AsyncClient() as client:
        if command.max_price is not None:
            await _check_price(client, command)
        batch = client.batch(
            command.endpoint,
            rows,
            journal=journal,
            output=command.output,
            arguments=command.arguments(),
            progress=progress,
            **command.options,
        )
        async with batch, open_task_group() as group:
            received: list[int] = []
            group.start_soon(_stop_on_signals, batch, received, command)
            failure = await _finish(batch, command)
            group.cancel_scope.cancel()
    if not command.quiet:
        _write_line(_describe_end(batch.summary, command))
    if received:
        return 128 + received[0]
    return _FATAL if failure else _exit_status(batch.summary)


async def _finish(batch: Batch, command: BatchCommand) -> bool:
    """Run the batch to its end; return whether an error has stopped it."""
    try:
        if command.output is not None:
            await batch.run()
        else:
            async for job in batch:
                sys.stdout.buffer.write(encode_json(job.to_dict()) + b"\n")
                sys.stdout.flush()
    except InvalidRequestError:
        raise
    except FalClientError as error:
        write_note(str(error))
        return True
    return False


async def _stop_on_signals(batch: Batch, received: list[int], command: BatchCommand) -> None:
    """Stop the batch gracefully at the first signal, and at once at the second."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if not (received or command.quiet):
                in_flight = batch.progress.in_flight
                _write_line(
                    f"stopping: no more jobs are started, and {in_flight} are waited for; Ctrl-C "
                    "again ends at once"
                )
            received.append(int(number))
            batch.stop()


def _exit_status(summary: BatchSummary) -> int:
    if summary.stopped == "budget":
        return _BUDGET
    if summary.unsure or summary.lost:
        return _UNSURE
    return _FAILED if summary.failed else 0


def _describe_end(summary: BatchSummary, command: BatchCommand) -> str:
    counts = {"failed": summary.failed, "unsure": summary.unsure, "lost": summary.lost}
    parts = [
        f"{summary.ok:,} ok",
        *(f"{count:,} {name}" for name, count in counts.items() if count),
    ]
    if summary.resumed:
        parts.append(f"{summary.resumed:,} from earlier runs")
    text = ", ".join(parts)
    if summary.stopped is None:
        return text
    journal = command.journal_path()
    again = (
        "" if journal is None else f"; the same command continues with {without_password(journal)}"
    )
    return f"stopped ({summary.stopped}): {text}{again}"


async def _check_price(client: AsyncClient, command: BatchCommand) -> None:
    price = (await client.models.prices(command.endpoint)).get(command.endpoint)
    if price is None or price.unit_price > Decimal(str(command.max_price)):
        found = "unknown" if price is None else _describe_price(price)
        raise UsageError(f"the price must be at most {command.max_price}, and is {found}")


def _describe_price(price: Price) -> str:
    return f"{price.unit_price} {price.currency} for one {price.unit}"


def _forget(path: str, retry: str) -> None:
    if retry not in RETRIED:
        raise UsageError(f"--retry must be one of {', '.join(RETRIED)}, got {retry!r}")
    with Journal(path) as journal:
        for state in RETRIED[retry]:
            journal.forget(*[entry.key for entry in journal.entries(state)])


def _warn(message: str) -> None:
    write_note(f"skipped: {message}")


def _write_line(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 -- for people


def _write_progress(progress: Progress) -> None:
    names = (
        "total",
        "done",
        "ok",
        "failed",
        "unsure",
        "lost",
        "in_flight",
        "running",
        "per_second",
    )
    values: dict[str, Any] = {name: getattr(progress, name) for name in names}
    values["eta"] = None if progress.eta is None else progress.eta.total_seconds()
    values["cost"] = None if progress.cost is None else float(progress.cost)
    _write_line(encode_json(values).decode())


def _open_journal(path: str) -> Journal:
    """Return a journal that exists: opening another path would make an empty one."""
    if not path.startswith(POSTGRES) and not Path(path).is_file():
        raise InvalidRequestError(f"cannot open the journal {path}: no such file")
    return Journal(path, shared=True)


def status(path: str) -> int:
    """Write the counts of a journal to stdout."""
    with _open_journal(path) as journal:
        summary = journal.summary()
        for state, count in sorted(summary.states.items()):
            sys.stdout.write(f"{state:10} {count:,}\n")
        sys.stdout.write(f"{'jobs':10} {summary.attempts:,}\n{'units':10} {summary.units:g}\n")
        if summary.cost is not None:
            sys.stdout.write(f"{'cost':10} {summary.cost:.4f}\n")
        for run in journal.runs():
            sys.stdout.write(f"in use by process {run.pid} on {run.host}\n")
    return 0


def export(path: str, output: Path | None) -> int:
    """Write the inputs of a journal as JSON lines, ordered by their position."""
    with _open_journal(path) as journal:
        entries = sorted(journal.entries(), key=lambda entry: entry.position)
        stream = sys.stdout.buffer if output is None else output.open("wb")
        try:
            for entry in entries:
                row: dict[str, Any] = {
                    "index": entry.position,
                    "key": entry.key,
                    "state": entry.state,
                    "output": journal[entry.key].output,
                    "request_id": entry.request_id,
                    "attempts": entry.attempts,
                }
                if entry.error is not None:
                    row["error"] = entry.error
                if entry.files:
                    row["files"] = entry.files
                if entry.units is not None:
                    row["units"] = entry.units
                stream.write(encode_json(row) + b"\n")
        finally:
            if output is not None:
                stream.close()
    return 0


def sort(path: Path) -> int:
    """Order the rows of an output by their index. A later run continues the file."""

    def index(line: bytes) -> int:
        return int(decode_json(line)["index"])

    try:
        rows = sorted(path.read_bytes().splitlines(keepends=True), key=index)
        write_file(path, b"".join(rows))
    except OSError as error:
        raise UsageError(f"cannot sort {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError) as error:
        raise UsageError(f"cannot sort {path}: a line is not a row of an output") from error
    return 0


def cancel(path: str) -> int:
    """Cancel all jobs that a journal knows to be running."""
    return anyio.run(_cancel, path)


async def _cancel(path: str) -> int:
    with _open_journal(path) as journal:
        entries = list(journal.entries("running"))
    failed = 0
    limit = anyio.CapacityLimiter(16)
    async with AsyncClient() as client, anyio.create_task_group() as group:

        async def cancel_one(application: str, request_id: str) -> None:
            nonlocal failed
            async with limit:
                try:
                    await client.cancel(application, request_id)
                except FalClientError:
                    failed += 1

        for entry in entries:
            if entry.request_id is not None:
                group.start_soon(cancel_one, entry.application, entry.request_id)
    sys.stdout.write(f"{len(entries) - failed:,} of {len(entries):,} jobs cancelled\n")
    return _FAILED if failed else 0
