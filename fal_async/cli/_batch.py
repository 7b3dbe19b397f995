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
from fal_async._net.tasks import open_task_group
from fal_async._protocol.serialization import encode_json
from fal_async.batch.entries import SUCCEEDED
from fal_async.batch.errors import ChangedInputError, JournalError
from fal_async.batch.inputs import ItemFactory, iterate_rows, parse_lines
from fal_async.batch.journal import POSTGRES
from fal_async.batch.paths import check_unique
from fal_async.batch.postgres import without_password
from fal_async.batch.survey import survey
from fal_async.cli._errors import UsageError, name_options, sanitize_line, write_note
from fal_async.cli._input import read_arguments
from fal_async.cli._schemas import InputSchema
from fal_async.cli._streams import check_stdout, read_stdin
from fal_async.cli._waits import WaitReasons
from fal_async.errors import (
    FalClientError,
    InvalidRequestError,
    MissingCredentialsError,
    NotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fal_async import Price
    from fal_async.batch.batch import Batch
    from fal_async.batch.entries import State, Summary
    from fal_async.batch.inputs import Row
    from fal_async.batch.jobs import BatchSummary, Progress
    from fal_async.batch.survey import Survey

__all__ = ["BatchCommand", "run"]

_FAILED: Final = 1
_BUDGET: Final = 3
_FATAL: Final = 4
_UNSURE: Final = 5

#: The states that `--retry` selects.
RETRIED: Final[Mapping[str, tuple[State, ...]]] = {
    "failed": ("failed",),
    "final": ("failed",),
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
            if self.journal is not None:
                raise UsageError("--journal and --no-journal exclude each other")
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
    if command.retry is not None and command.retry not in RETRIED:
        raise UsageError(f"--retry must be one of {', '.join(RETRIED)}, got {command.retry!r}")
    source = None if command.source == "-" else command.source
    files = {"input": source, "output": command.output, "journal": command.journal_path()}
    check_unique(files)
    if source is not None:  # before a journal is made
        next(iterate_rows(Path(source), _ignore), None)
    try:
        return anyio.run(_check if dry_run else _run, command)
    except (InvalidRequestError, MissingCredentialsError, ChangedInputError, JournalError):
        raise
    except FalClientError as error:
        write_note(str(error))
        return _FATAL


async def _check(command: BatchCommand) -> int:
    """Write the number of rows and the price, and which rows the model would refuse.

    No job is started.
    """
    rows = list(command.rows())
    factory = ItemFactory(command.endpoint, arguments=command.arguments())
    items = await factory.make([row for _, row in rows])
    async with AsyncClient() as client:
        with _known_journal(command) as journal:
            batch = client.batch(
                command.endpoint,
                [row for _, row in rows],
                journal=journal,
                arguments=command.arguments(),
                **command.options,
            )
            retried = () if command.retry is None else tuple(_retried(journal, command.retry))
            found, earlier = await survey(batch, without=set(retried)), journal.summary()
        if command.max_price is not None:
            await _check_price(client, command)
        prices = {} if command.options["price"] else await client.models.prices(command.endpoint)
        try:
            schema = InputSchema(await client.models.schema(command.endpoint))
        except NotFoundError as error:
            schema = None
            write_note(f"the rows are not checked: {error}")
    refused = 0
    for (number, _), item in zip(rows, items, strict=True):
        errors = [] if schema is None else schema.errors(item.arguments)
        refused += bool(errors)
        if errors:
            _write_line(f"{command.source}, line {number}: {sanitize_line('; '.join(errors))}")
    parts = [f"{len(rows):,} rows", f"{found.repeated:,} repeat others"]
    if schema is not None:
        parts.append(f"{refused:,} would be refused")
    price = prices.get(command.endpoint)
    mean = _mean_cost(command, earlier, price)
    left = found.work["to do"]
    cost = "the price is unknown" if mean is None else f"about {mean * left:.2f} to pay"
    unit = "" if price is None else f", {_describe_price(price)}"
    counts = ", ".join(_describe_work(found))
    sys.stdout.write(f"{', '.join(parts)}; {counts}, {cost}{unit}\n")
    if refused:
        return _FAILED
    budget = command.options["budget"]
    if budget is None:
        return 0
    if mean is None:
        raise UsageError("--price is needed with --budget: the platform names no price")
    total = (earlier.cost or 0) + mean * left
    return _BUDGET if total > Decimal(str(budget)) else 0


def _known_journal(command: BatchCommand) -> Journal:
    """Return the journal of a command, or an empty one: opening another path would make a file."""
    path = command.journal_path()
    if path is None or not (path.startswith(POSTGRES) or Path(path).exists()):
        path = ":memory:"
    return Journal(path, shared=True)


def _mean_cost(command: BatchCommand, earlier: Summary, price: Price | None) -> Decimal | None:
    """Return the mean cost of the jobs before, or the price of a unit, or ``None``."""
    paid = sum(earlier.states.get(state, 0) for state in SUCCEEDED)
    if earlier.cost is not None and paid:
        return earlier.cost / paid
    if command.options["price"]:
        return Decimal(str(command.options["price"]))
    return None if price is None else price.unit_price


async def _run(command: BatchCommand) -> int:
    rows = (
        [row for _, row in command.rows()]
        if command.limit or command.source == "-" or command.fields or command.skip_bad_lines
        else command.source
    )
    progress: Any = _write_progress if command.json_progress else not command.quiet
    is_quiet = command.quiet or command.json_progress
    async with AsyncClient(hooks=None if is_quiet else WaitReasons()) as client:
        if command.max_price is not None:
            await _check_price(client, command)
        with Journal(command.journal_path() or ":memory:") as journal:
            if command.retry is not None:
                journal.forget(*_retried(journal, command.retry))
            batch = client.batch(
                command.endpoint,
                rows,
                journal=journal,
                output=command.output,
                arguments=command.arguments(),
                progress=progress,
                **command.options,
            )
            found = await survey(batch)
            async with batch, open_task_group() as group:
                if not is_quiet:
                    _write_line(_describe_start(batch, found))
                received: list[int] = []
                group.start_soon(_stop_on_signals, batch, received, is_quiet)
                failure = await _finish(batch, command)
                group.cancel_scope.cancel()
    if not is_quiet:
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
    except (InvalidRequestError, MissingCredentialsError, BrokenPipeError):
        raise
    except (FalClientError, OSError) as error:
        write_note(name_options(str(error)))
        return True
    return False


async def _stop_on_signals(batch: Batch, received: list[int], is_quiet: bool) -> None:  # noqa: FBT001 -- of a task
    """Stop the batch gracefully at the first signal, and at once at the second."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            if not (received or is_quiet):
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


def _describe_start(batch: Batch, found: Survey) -> str:
    """Return the rows of a batch in words: what the journal knows of them, and what is left."""
    progress, earlier_price = batch.progress, batch.summary.earlier_price
    total, left = progress.total or 0, found.work["to do"]
    parts = [f"{total:,} rows", *_describe_work(found)]
    if left and progress.cost_at_end is not None:
        parts.append(f"about {progress.cost_at_end * left / total:.2f} to pay")
    if earlier_price is not None:
        parts.append(f"the price of a unit is no longer {earlier_price}")
    return ", ".join(parts)


def _describe_work(found: Survey) -> list[str]:
    work = found.work
    known = {"done before": work["done"], "running": work["running"], "unsure": work["unsure"]}
    parts = [f"{count:,} {name}" for name, count in known.items() if count]
    return [*parts, f"{work['to do']:,} to do"]


def _describe_end(summary: BatchSummary, command: BatchCommand) -> str:
    counts = {"failed": summary.failed, "unsure": summary.unsure, "lost": summary.lost}
    parts = [
        f"{summary.ok:,} ok",
        *(f"{count:,} {name}" for name, count in counts.items() if count),
    ]
    if summary.resumed:
        parts.append(f"{summary.resumed:,} from earlier runs")
    if summary.repeated:
        parts.append(f"{summary.repeated:,} repeat others")
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


def _retried(journal: Journal, retry: str) -> Iterator[str]:
    """Yield the keys of outcomes of earlier runs whose rows are to be started once more."""
    for state in RETRIED[retry]:
        for entry in journal.entries(state):
            error = entry.error or {}
            # Files are downloaded again without another job, which would be paid.
            if error.get("stage") != "download" and (retry != "final" or error.get("final")):
                yield entry.key


def _ignore(message: str) -> None: ...


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
