"""The commands of the journals and outputs of batches."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

from fal_async import AsyncClient, Journal
from fal_async._net.files import write_file
from fal_async._protocol.serialization import decode_json, encode_json
from fal_async.batch.claims import withdraw
from fal_async.batch.entries import UNIDENTIFIED, Update
from fal_async.batch.journal import POSTGRES, read_journal
from fal_async.batch.output_file import output_lock
from fal_async.batch.paths import check_unique
from fal_async.cli._errors import UsageError, write_note
from fal_async.errors import FalClientError, InvalidRequestError
from fal_async.types import Completed

if TYPE_CHECKING:
    from fal_async.batch.entries import Entry
    from fal_async.types import Status

__all__ = ["cancel", "export", "sort", "status"]

_FAILED: Final = 1

#: The number of unsure inputs of each state that `status` names.
MAX_NAMED: Final = 10
#: The number of jobs that are cancelled at once.
CONCURRENCY: Final = 16
#: The time that runners have to end their cancelled jobs, in seconds.
CANCELLATION_PATIENCE: Final = 10.0


def _check_exists(path: str) -> str:
    """Return the path of a journal that exists: opening another one would make an empty one."""
    if not path.startswith(POSTGRES) and not Path(path).is_file():
        raise InvalidRequestError(f"cannot open the journal {path}: no such file")
    return path


def status(path: str) -> int:
    """Write the counts of a journal to stdout, and the keys of some unsure inputs."""
    with read_journal(_check_exists(path)) as journal:
        summary = journal.summary()
        for state, count in sorted(summary.states.items()):
            sys.stdout.write(f"{state:10} {count:,}\n")
        sys.stdout.write(f"{'attempts':10} {summary.attempts:,}\n")
        sys.stdout.write(f"{'units':10} {summary.units:g}\n")
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
    check_unique({"journal": path, "output": output})
    with read_journal(_check_exists(path)) as journal:
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

    lock = output_lock(path)
    try:
        if not lock.acquire():
            raise UsageError(f"cannot sort {path}: a batch writes it; sort it after its end")
        rows = sorted(path.read_bytes().splitlines(keepends=True), key=index)
        write_file(path, b"".join(rows))
    except OSError as error:
        raise UsageError(f"cannot sort {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, LookupError) as error:
        raise UsageError(f"cannot sort {path}: a line is not a row of an output") from error
    finally:
        lock.release()
    return 0


def cancel(path: str) -> int:
    """Cancel all jobs that a journal knows to be running, so that the next run starts others."""
    return anyio.run(_cancel, path)


async def _cancel(path: str) -> int:
    outcomes: Counter[str] = Counter()
    limit = anyio.CapacityLimiter(CONCURRENCY)
    with Journal(_check_exists(path), shared=True) as journal:
        entries = [entry for entry in journal.entries("running") if entry.request_id is not None]
        users = journal.runs()
        async with AsyncClient() as client, anyio.create_task_group() as group:

            async def cancel_one(entry: Entry) -> None:
                # A process that uses the journal records the outcomes of its jobs itself.
                recorder = None if users else journal
                outcomes[await _cancel_job(client, recorder, entry, limit)] += 1

            for entry in entries:
                group.start_soon(cancel_one, entry)
        await journal._flush()
    texts = {
        "ended": "{:,} had already ended; continue the batch to collect them",
        "ending": "{:,} may still end by themselves; cancel again later, or continue the batch",
        "failed": "{:,} could not be cancelled",
    }
    sys.stdout.write(f"{outcomes['cancelled']:,} of {len(entries):,} jobs cancelled\n")
    for outcome, text in texts.items():
        if outcomes[outcome]:
            sys.stdout.write(text.format(outcomes[outcome]) + "\n")
    for run in users:
        sys.stdout.write(f"in use by process {run.pid} on {run.host}, which may start more\n")
    return _FAILED if outcomes["failed"] else 0


async def _cancel_job(
    client: AsyncClient, journal: Journal | None, entry: Entry, limit: anyio.CapacityLimiter
) -> str:
    """Cancel a job and wait for its end; return what has become of it.

    A runner may complete its job despite the cancellation, so only the end tells.
    """
    ids = {"application": entry.application, "request_id": str(entry.request_id)}
    try:
        handle = client.attach(entry.handle or ids)
        async with limit:
            if journal is not None:
                await journal._commit(withdraw(entry.key, entry.attempts), enough=CONCURRENCY)
            await handle.cancel()
        last: Status | None = None
        with anyio.move_on_after(CANCELLATION_PATIENCE):
            async with aclosing(handle.iter_events()) as statuses:
                async for status in statuses:
                    last = status
    except FalClientError as error:
        write_note(f"input {entry.position}: {error}")
        return "failed"
    if not isinstance(last, Completed):
        return "ending"
    if last.error_type != "client_cancelled":
        return "ended"
    if journal is not None:
        values = {"state": "planned", "error": None}
        journal._commit_soon(Update(entry.key, entry.attempts, values, states=("running",)))
    return "cancelled"
