"""The commands of the journals and outputs of batches."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any, Final

import anyio

from fal_async import AsyncClient, Journal
from fal_async._net.files import write_file
from fal_async._protocol.serialization import decode_json, encode_json
from fal_async.batch.entries import UNIDENTIFIED
from fal_async.batch.journal import POSTGRES
from fal_async.batch.paths import check_distinct
from fal_async.cli._errors import UsageError
from fal_async.errors import FalClientError, InvalidRequestError

__all__ = ["cancel", "export", "sort", "status"]

_FAILED: Final = 1

#: The number of unsure inputs of each state that `status` names.
MAX_NAMED: Final = 10


def _open_journal(path: str) -> Journal:
    """Return a journal that exists: opening another path would make an empty one."""
    if not path.startswith(POSTGRES) and not Path(path).is_file():
        raise InvalidRequestError(f"cannot open the journal {path}: no such file")
    return Journal(path, shared=True)


def status(path: str) -> int:
    """Write the counts of a journal to stdout, and the keys of some unsure inputs."""
    with _open_journal(path) as journal:
        summary = journal.summary()
        for state, count in sorted(summary.states.items()):
            sys.stdout.write(f"{state:10} {count:,}\n")
        sys.stdout.write(f"{'jobs':10} {summary.attempts:,}\n{'units':10} {summary.units:g}\n")
        if summary.cost is not None:
            sys.stdout.write(f"{'cost':10} {summary.cost:.4f}\n")
        for state in UNIDENTIFIED:
            for entry in itertools.islice(journal.entries(state), MAX_NAMED):
                sys.stdout.write(f"{state:10} input {entry.position}, key {entry.key}\n")
        for run in journal.runs():
            sys.stdout.write(f"in use by process {run.pid} on {run.host}\n")
    return 0


def export(path: str, output: Path | None) -> int:
    """Write the inputs of a journal as JSON lines, ordered by their position."""
    check_distinct({"journal": path, "output": output})
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
