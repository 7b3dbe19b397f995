"""`OutputFile`: the rows of a batch as JSON lines, each exactly once."""

from __future__ import annotations

import errno
import itertools
import os
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from fal_async._net.background import spawn
from fal_async._net.files import write_file
from fal_async._net.threads import Work, run_in_thread
from fal_async._protocol.serialization import encode_json
from fal_async.batch.entries import COMPLETE, Note, Update
from fal_async.batch.jobs import StoredJob
from fal_async.batch.output_rows import check_rows, has_line_end, last_line, parse_rows
from fal_async.batch.sqlite import FileLock
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fal_async.batch.jobs import Job
    from fal_async.batch.journal import Journal
    from fal_async.batch.journal_store import JournalStore
    from fal_async.batch.output_rows import OutputRow

__all__ = ["OutputFile", "output_lock"]

#: The least time between two writes, in seconds.
WRITE_INTERVAL: Final = 0.25


class OutputFile:
    """A file of JSON lines, whose durable size the journal knows.

    Rows are appended and written to the disk, and then marked in the journal. What a crash has left
    behind the durable size is cut off, so that each row is there once.

    Args:
        path: The path of the file, which is created if necessary.
        journal: The journal, which is open.
    """

    def __init__(self, path: str | os.PathLike[str], journal: Journal) -> None:
        self._path = Path(path)
        self._target = self._path.resolve()  # a rewrite must not replace a symbolic link
        self._journal = journal
        self._descriptor: int | None = None
        self._lock = output_lock(self._path)
        self._rows: deque[tuple[str, int, bytes | StoredJob]] = deque()
        self._size = 0
        self._first_size = 0
        self._replaced: set[str] = set()
        self._is_writing = False
        self._written = anyio.Event()
        self._error: OSError | None = None

    @property
    def _size_note(self) -> str:
        """The name of the note that has the durable size."""
        return f"output_size {self._target}"

    async def open(self) -> None:
        """Open the file, and cut off rows that are not durable or not valid any more.

        Raises:
            InvalidRequestError: The file has rows that are not of the journal.
            OSError: The file cannot be written, or another process writes it.
        """
        await self._journal._read(self._recover)

    def _recover(self, store: JournalStore) -> None:
        if self._path.exists() and not self._path.is_file():
            raise InvalidRequestError(f"output must be the path of a file, got {self._path}")
        if not self._lock.acquire():
            raise OSError(errno.EBUSY, "another process writes the rows", str(self._path))
        self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
        size_note, target = self._size_note, str(self._target)
        noted, size = store.note(size_note), os.fstat(self._descriptor).st_size
        durable = size if noted is None else int(noted)
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            is_stale = (
                store.note("output_is_stale") == "1"
                or store.note("output_path") != target
                or size < durable
                or not has_line_end(file, durable)
            )
            file.seek(0 if is_stale else last_line(file, durable))
            rows = parse_rows(self._path, file)
        check_rows(
            self._path,
            rows,
            store,
            is_known=noted is not None,
            may_forget=noted is not None and store.note("output_has_forgotten") == "1",
        )
        if is_stale:
            durable = self._rewrite(store, rows, min(size, durable))
        os.ftruncate(self._descriptor, durable)
        os.lseek(self._descriptor, durable, os.SEEK_SET)
        self._size = self._first_size = durable
        notes = {
            size_note: str(durable),
            "output_path": target,
            "output_is_stale": "0",
            "output_has_forgotten": "0",
        }
        store.commit([Note(name, value) for name, value in notes.items()])

    def _rewrite(self, store: JournalStore, rows: Iterable[OutputRow], size: int) -> int:
        """Keep the rows whose inputs are complete, and mark the others as not written.

        Args:
            store: The journal.
            rows: The rows of the file.
            size: The size up to which they are durable.
        """
        assert self._descriptor is not None  # noqa: S101 -- opened by the caller
        ends = itertools.accumulate(len(row.line) for row in rows)
        durable = {
            (row.key, row.index): row.line  # equal inputs may share a key
            for row, end in zip(rows, ends, strict=True)
            if end <= size and row.line.endswith(b"\n")
        }
        kept = {
            key
            for key, entry in store.find(list({key for key, _ in durable})).items()
            if entry.state in COMPLETE and (entry.error is None or entry.error.get("final"))
        }
        content = b"".join(line for (key, _), line in durable.items() if key in kept)
        if os.fstat(self._descriptor).st_size:
            os.close(self._descriptor)
            write_file(self._target, content)
            self._descriptor = os.open(self._path, os.O_RDWR)
        changed = [
            entry for entry in store.entries(None) if entry.is_written != (entry.key in kept)
        ]
        store.commit([Update(e.key, e.attempts, {"is_written": e.key in kept}) for e in changed])
        return len(content)

    def _remove_replaced(self, store: JournalStore) -> None:
        """Remove the rows of earlier runs that rows of this one replace."""
        content = self._path.read_bytes()
        rows = parse_rows(self._path, content[: self._first_size].splitlines(keepends=True))
        kept = [row.line for row in rows if row.key not in self._replaced]
        content = b"".join([*kept, content[self._first_size :]])
        write_file(self._target, content)
        # A crash before this leaves a file that is shorter than the journal knows.
        store.commit([Note(self._size_note, str(len(content)))])

    def add(self, job: Job, *, replace: bool = False) -> None:
        """Append the row of a job soon. A large output may be in the journal only.

        Args:
            job: The job.
            replace: Whether earlier runs have written a row of the input, which is removed when
                the file is closed.

        Raises:
            OSError: Earlier rows could not be written.
        """
        if self._error is not None:
            raise self._error
        if replace:
            self._replaced.add(job.key)
        if replace or job.ok is None or (job.error is not None and not job.error.final):
            self._journal._commit_soon(Note("output_is_stale", "1"))  # rows have to be removed
        row = job if isinstance(job, StoredJob) and job.output is None else _encode_row(job)
        self._rows.append((job.key, job.attempts, row))
        if not self._is_writing:
            self._is_writing = True
            spawn(self._write_rows)

    async def _write_rows(self) -> None:
        try:
            while self._rows:
                rows = await self._take_rows()
                await run_in_thread(partial(self._append, [row for _, _, row in rows]), Work.FILES)
                for key, attempts, _ in rows:
                    self._journal._commit_soon(Update(key, attempts, {"is_written": True}))
                self._journal._commit_soon(Note(self._size_note, str(self._size)))
                if not self._rows:
                    await anyio.sleep(WRITE_INTERVAL)
        except OSError as error:
            self._error = OSError(
                error.errno, f"cannot write the rows: {error.strerror}", str(self._path)
            )
        finally:
            self._is_writing = False
            written, self._written = self._written, anyio.Event()
            written.set()

    async def _take_rows(self) -> list[tuple[str, int, bytes]]:
        """Remove the next rows from those to write: up to one whose output is in the journal."""
        rows: list[tuple[str, int, bytes]] = []
        while self._rows:
            key, attempts, row = self._rows.popleft()
            if isinstance(row, bytes):
                rows.append((key, attempts, row))
                continue
            stored = replace(row, output=await self._journal._output(key))
            rows.append((key, attempts, _encode_row(stored)))
            break
        return rows

    def _append(self, rows: Iterable[bytes]) -> None:
        assert self._descriptor is not None  # noqa: S101 -- opened before
        content = memoryview(b"".join(rows))
        while content:
            written = os.write(self._descriptor, content)
            self._size += written
            content = content[written:]
        os.fsync(self._descriptor)

    async def aclose(self) -> None:
        """Write all rows, and close the file.

        Raises:
            OSError: Rows could not be written.
        """
        while self._is_writing and self._error is None:
            await self._written.wait()
        try:
            if self._replaced and self._error is None:
                await self._journal._flush()
                await self._journal._read(self._remove_replaced)
        finally:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                await run_in_thread(partial(os.close, descriptor), Work.CLEANUP)
            self._lock.release()
        if self._error is not None:
            raise self._error


def _encode_row(job: Job) -> bytes:
    return encode_json(job.to_dict()) + b"\n"


def output_lock(path: Path) -> FileLock:
    """Return the lock of an output, which a process holds while it writes rows."""
    return FileLock(Path(f"{path.resolve()}-lock"))
