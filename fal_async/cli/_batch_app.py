"""The commands of batches and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from fal_async.cli._errors import UsageError, name_options
from fal_async.errors import InvalidRequestError

__all__ = ["batch"]


class _BatchGroup(typer.core.TyperGroup):
    """Commands of batches; a file instead of a command runs a batch."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command ``run`` if there is none."""
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            args = ["run", *args]
        return super().parse_args(ctx, args or ["--help"])

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            UsageError: The options are invalid, or a file cannot be used.
        """
        from fal_async.batch.errors import ChangedInputError, JournalError

        try:
            return super().invoke(ctx)
        except (InvalidRequestError, ChangedInputError, JournalError) as error:
            raise UsageError(name_options(str(error))) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            where = "" if error.filename is None else f"cannot use {error.filename}: "
            raise UsageError(f"{where}{error.strerror or error}") from error


batch = typer.Typer(
    cls=_BatchGroup,
    help="Start a job for each row of a file, once: batch FILE --endpoint ID [-o FILE].",
)

JournalPath = Annotated[
    str, typer.Argument(metavar="JOURNAL", help="The path or the URL of the journal.")
]


@batch.command("run")
def run_batch(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="The rows: .jsonl, .csv or .parquet; - is stdin.")
    ],
    *,
    endpoint: Annotated[str, typer.Option(metavar="ID", help="The id of the endpoint.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The outcomes; stdout by default."),
    ] = None,
    journal: Annotated[
        str | None,
        typer.Option(metavar="PATH|URL", help="The journal; beside the output by default."),
    ] = None,
    no_journal: Annotated[
        bool, typer.Option("--no-journal", help="Keep no journal: nothing can be continued.")
    ] = False,
    save: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Save files, such as 'img/{index}-{n}{ext}'."),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=TEXT|KEY:=JSON", help="An argument of every row."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--arguments", metavar="NAME=COLUMN,...", help="The columns of arguments."),
    ] = None,
    in_flight: Annotated[
        str, typer.Option(metavar="NUMBER|auto", help="The most jobs in flight.")
    ] = "auto",
    attempts: Annotated[int, typer.Option(metavar="NUMBER", help="The most jobs for a row.")] = 3,
    priority: Annotated[
        str | None, typer.Option(metavar="low|normal", help="The priority of the jobs.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="AMOUNT", help="The most that the batch may cost.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(metavar="AMOUNT", help="The price of a unit.")
    ] = None,
    max_price: Annotated[
        float | None, typer.Option(metavar="AMOUNT", help="Start nothing at a higher price.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that identifies a row.")
    ] = None,
    duplicates: Annotated[str, typer.Option(metavar="each|once|error")] = "each",
    changed: Annotated[str, typer.Option(metavar="error|new|keep")] = "error",
    unsure: Annotated[str, typer.Option(metavar="look|report|again")] = "look",
    lost: Annotated[str, typer.Option(metavar="report|again")] = "report",
    retry: Annotated[
        str | None,
        typer.Option(
            metavar="failed|final|lost|unsure|all",
            help="Start these rows once more; final: rejected, or failed in all attempts.",
        ),
    ] = None,
    on_stop: Annotated[str, typer.Option(metavar="leave|wait|cancel")] = "leave",
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", help="The time that jobs have after Ctrl-C.")
    ] = 30.0,
    limit: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help="The first rows alone.")
    ] = None,
    skip_bad_lines: Annotated[
        bool,
        typer.Option("--skip-bad-lines", help="Name lines that are not rows, and leave them out."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, price and check the rows; start nothing.")
    ] = False,
    ordered: Annotated[bool, typer.Option("--ordered", help="Keep the order of the rows.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Write nothing but errors to stderr.")
    ] = False,
    json_progress: Annotated[
        bool, typer.Option("--json-progress", help="Write the progress as JSON lines.")
    ] = False,
) -> int:
    """Start a job for each row of a file, once: the same command again continues.

    Exit status: 0 all ok, 1 some failed, 2 wrong usage, 3 budget, 4 stopped by an error, 5 some
    unsure or lost, 130 and 143 stopped by a signal.
    """
    from fal_async.cli import _batch

    options: dict[str, Any] = {
        "save": save,
        "in_flight": int(in_flight) if in_flight.isdecimal() else in_flight,
        "attempts": attempts,
        "budget": budget,
        "price": price,
        "key": key,
        "duplicates": duplicates,
        "changed": changed,
        "unsure": unsure,
        "lost": lost,
        "on_stop": on_stop,
        "grace": grace,
        "ordered": ordered,
    }
    if priority is not None:
        options["priority"] = priority
    command = _batch.BatchCommand(
        source=source,
        endpoint=endpoint,
        output=None if output == Path("-") else output,
        journal=journal,
        no_journal=no_journal,
        fields=tuple(fields or ()),
        columns=columns,
        limit=limit,
        max_price=max_price,
        retry=retry,
        skip_bad_lines=skip_bad_lines,
        quiet=quiet,
        json_progress=json_progress,
        options=options,
    )
    return _batch.run(command, dry_run=dry_run)


@batch.command("status")
def batch_status(journal: JournalPath) -> int:
    """Count the inputs of a journal by state, and name the processes that use it."""
    from fal_async.cli import _journals

    return _journals.status(journal)


@batch.command("export")
def batch_export(
    journal: JournalPath,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Stdout by default.")
    ] = None,
) -> int:
    """Write the inputs of a journal as JSON lines, in the order of the rows."""
    from fal_async.cli import _journals

    return _journals.export(journal, output)


@batch.command("sort")
def batch_sort(
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The file of a batch.")],
) -> int:
    """Order the rows of an output, while no batch writes it."""
    from fal_async.cli import _journals

    return _journals.sort(output)


@batch.command("cancel")
def batch_cancel(journal: JournalPath) -> int:
    """Cancel all jobs that a journal knows to be running, so that the next run starts others."""
    from fal_async.cli import _journals

    return _journals.cancel(journal)
