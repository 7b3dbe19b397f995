"""The queries of a journal, in the SQL that SQLite and PostgreSQL share."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from fal_async.batch.entries import Begin, Forget, KnownUpload, Run, Summary, Update
from fal_async.batch.errors import (
    JournalDamagedError,
    JournalError,
    JournalInUseError,
    JournalTooNewError,
)
from fal_async.batch.schema import (
    SCHEMA,
    SCHEMA_VERSION,
    identify,
    row_order,
    to_column,
    to_entry,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from fal_async._files.attachment_uploads import UploadContent
    from fal_async.batch.entries import Change, Entry, State

__all__ = ["SQLJournalStore"]

#: The number of keys in one query.
CHUNK: Final = 500

_COLUMNS: Final = (
    "inputs.key, application, state, attempts, run, position, digest, request_id, handle, "
    "tried_at, ended_at, units, cost, error, files, is_written"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM inputs JOIN endpoints ON endpoints.id = inputs.endpoint"  # noqa: S608 -- a constant
_INSERT: Final = """
INSERT INTO inputs (key, endpoint, state, attempts, run, position, digest, tried_at)
VALUES (:key, :endpoint, 'submitting', 1, :run, :position, :digest, :at)
ON CONFLICT (key) DO NOTHING
"""
_CLAIM: Final = """
UPDATE inputs SET endpoint = :endpoint, state = 'submitting', attempts = attempts + 1, run = :run,
    position = :position, digest = :digest, tried_at = :at, request_id = NULL, handle = NULL,
    ended_at = NULL, units = NULL, cost = NULL, error = NULL, files = NULL, is_written = 0
WHERE key = :key AND state = :state AND attempts = :attempts AND run = :known_run
"""
_SET_OUTPUT: Final = """
INSERT INTO outputs (key, body) VALUES (:key, :body)
ON CONFLICT (key) DO UPDATE SET body = excluded.body
"""
_SET_NOTE: Final = """
INSERT INTO notes (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
_SET_UPLOAD: Final = """
INSERT INTO uploads (sha256, size, content_type, lifecycle, url, uploaded_at, expires_at)
VALUES (:sha256, :size, :content_type, :lifecycle, :url, :uploaded_at, :expires_at)
ON CONFLICT (sha256, size, content_type, lifecycle) DO UPDATE
SET url = excluded.url, uploaded_at = excluded.uploaded_at, expires_at = excluded.expires_at
"""
_FIND_UPLOAD: Final = """
SELECT url, uploaded_at, expires_at FROM uploads WHERE sha256 = :sha256 AND size = :size
    AND content_type = :content_type AND lifecycle = :lifecycle
"""
_ADD_RUN: Final = """
INSERT INTO runs (name, host, pid, since, exclusive)
VALUES (:name, :host, :pid, :since, :exclusive) RETURNING number
"""
_LONGEST: Final = """
SELECT max(ended_at - tried_at) FILTER (WHERE NOT EXISTS (SELECT 1 FROM runs WHERE since BETWEEN
    tried_at AND ended_at)), max(ended_at - tried_at) FROM inputs WHERE state IN ('ended', 'saved')
"""
_SUMMARY: Final = """
SELECT state, count(*), sum(attempts), sum(units), sum({cost}) FROM inputs GROUP BY state
"""


class Cursor(Protocol):
    """The cursor of an executed statement."""

    @property
    def rowcount(self) -> int:
        """The number of changed rows."""
        raise NotImplementedError

    def fetchone(self) -> Any:
        """Return the next row."""
        raise NotImplementedError

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        raise NotImplementedError


class SQLJournalStore(ABC):
    """A journal in a database; subclasses connect to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run: Run | None = None
        self._endpoints: dict[str, int] = {}
        self._updates: dict[tuple[str, ...], str] = {}

    @abstractmethod
    def _connect(self, *, read_only: bool = False) -> None:
        """Connect to the database, and check that it is empty or a journal."""

    @abstractmethod
    def _execute(self, statement: str, values: Mapping[str, Any]) -> Cursor:
        """Execute a statement with named parameters, such as ``:key``, and return its cursor."""

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[None]:
        """Begin a transaction that may write; commit it at the end, durably."""

    @abstractmethod
    def _named_errors(self, action: str) -> AbstractContextManager[None]:
        """Raise errors of the database as errors of this library: cannot ``action``."""

    @abstractmethod
    def _schema_version(self) -> int:
        """Return the version of the schema; 0 for an empty database."""

    @abstractmethod
    def _changing_schema(self) -> AbstractContextManager[None]:
        """Begin a transaction in which no other process changes the tables."""

    @abstractmethod
    def _set_schema_version(self, version: int) -> None:
        """Mark the database as a journal of this version."""

    @abstractmethod
    def _hold(self, name: str) -> None:
        """Acquire the lock of this process, before other processes can see its run."""

    @abstractmethod
    def _is_alive(self, run: Run) -> bool:
        """Return whether the process of a run lives."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connection, and release the lock of this process."""

    @property
    @abstractmethod
    def _subject(self) -> str:
        """The journal in messages, without a password."""

    #: An expression that sums costs, which are decimal texts.
    _cost_as_number: str
    #: The types of columns by their names in the schema.
    _types: ClassVar[Mapping[str, str]]

    def open(self, *, exclusive: bool) -> Run:
        """Open the database, check it, and register this process."""
        with self._using("open"):
            try:
                self._connect()
                self._upgrade()
                self._run = self._register(exclusive=exclusive)
            except BaseException:
                self._disconnect()
                raise
            return self._run

    def open_for_reading(self) -> Run:
        """Open a database that is a journal; nothing is written, not even that it is read."""
        with self._using("open"):
            try:
                self._connect(read_only=True)
                self._known_version(may_be_empty=False)
                self._run = Run(number=0, name="", host="", pid=0, since=0.0, exclusive=False)
            except BaseException:
                self._disconnect()
                raise
            return self._run

    def _known_version(self, *, may_be_empty: bool) -> int:
        version = self._schema_version()
        if version == 0 and not may_be_empty:
            raise JournalDamagedError(f"cannot open {self._subject}: it is empty")
        if version > SCHEMA_VERSION:
            raise JournalTooNewError(
                f"cannot open {self._subject}: it has the schema version {version}, and this "
                f"version of fal_async knows {SCHEMA_VERSION}; update fal_async"
            )
        return version

    def _upgrade(self) -> None:
        """Create the tables, or change those of an earlier version."""
        version = self._known_version(may_be_empty=True)
        if version == SCHEMA_VERSION:
            return
        with self._changing_schema():
            version = self._schema_version()  # another process may have been faster
            for script in SCHEMA[version:]:
                for statement in script.format_map(self._types).strip().split(";\n"):
                    self._execute(statement, {})
            self._set_schema_version(SCHEMA_VERSION)

    def _register(self, *, exclusive: bool) -> Run:
        run = Run(
            number=0,
            name=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=time.time(),
            exclusive=exclusive,
        )
        self._hold(run.name)
        with self._transaction():
            for other in self._runs():
                if exclusive and other.exclusive and self._is_alive(other):
                    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(other.since))
                    raise JournalInUseError(
                        f"cannot open {self._subject}: it is in use by process {other.pid} on "
                        f"{other.host} since {since}; wait for its end, or open it with shared=True"
                    )
            values = {
                "name": run.name,
                "host": run.host,
                "pid": run.pid,
                "since": run.since,
                "exclusive": int(exclusive),
            }
            number = self._execute(_ADD_RUN, values).fetchone()[0]
        return replace(run, number=number)

    def _runs(self) -> list[Run]:
        statement = "SELECT number, name, host, pid, since, exclusive FROM runs"
        rows = self._execute(statement, {}).fetchall()
        return [
            Run(number=row[0], name=row[1], host=row[2], pid=row[3], since=row[4], exclusive=row[5])
            for row in rows
        ]

    def commit(self, changes: Sequence[Change]) -> list[bool]:
        """Make changes durable in one transaction."""
        # Processes that lock rows in the same order do not deadlock.
        order = sorted(range(len(changes)), key=lambda index: row_order(changes[index]))
        begun = sorted({change.application for change in changes if isinstance(change, Begin)})
        with self._using("write"):
            try:
                with self._transaction():
                    for application in begun:
                        self._endpoint(application)
                    applied = {index: self._apply(changes[index]) for index in order}
            except BaseException:
                self._endpoints.clear()  # one of them may have been rolled back
                raise
        return [applied[index] for index in range(len(changes))]

    def _apply(self, change: Change) -> bool:
        if isinstance(change, Update):
            return self._update(change)
        if isinstance(change, Begin):
            return self._begin(change)
        if isinstance(change, Forget):
            statement = "DELETE FROM inputs WHERE key = :key"
            return self._execute(statement, {"key": change.key}).rowcount > 0
        if isinstance(change, KnownUpload):
            times = {"uploaded_at": change.uploaded_at, "expires_at": change.expires_at}
            self._execute(_SET_UPLOAD, {**identify(change.content), **times, "url": change.url})
            return True
        self._execute(_SET_NOTE, {"name": change.name, "value": change.value})
        return True

    def _begin(self, change: Begin) -> bool:
        known = change.known
        values = {
            "key": change.key,
            "endpoint": self._endpoint(change.application),
            "run": self._run.number if self._run else 0,
            "position": change.position,
            "digest": change.digest,
            "at": change.at,
        }
        if known is None:
            return self._execute(_INSERT, values).rowcount > 0
        values |= {"state": known.state, "attempts": known.attempts, "known_run": known.run}
        claimed = self._execute(_CLAIM, values).rowcount > 0
        if claimed and known.state in {"ended", "saved"}:
            self._execute("DELETE FROM outputs WHERE key = :key", {"key": change.key})
        return claimed

    def _endpoint(self, application: str) -> int:
        if application not in self._endpoints:
            values = {"application": application}
            self._execute(
                "INSERT INTO endpoints (application) VALUES (:application) ON CONFLICT DO NOTHING",
                values,
            )
            statement = "SELECT id FROM endpoints WHERE application = :application"
            self._endpoints[application] = self._execute(statement, values).fetchone()[0]
        return self._endpoints[application]

    def _update(self, change: Update) -> bool:
        names = (*change.values, "where", *change.states)
        statement = self._updates.get(names)
        if statement is None:
            assignments = ", ".join(f"{name} = :{name}" for name in change.values)
            states = ", ".join(f"'{state}'" for state in change.states)
            condition = f" AND state IN ({states})" if states else ""
            statement = self._updates[names] = (
                f"UPDATE inputs SET {assignments} "  # noqa: S608 -- names of columns and states
                f"WHERE key = :key AND attempts = :known_attempts{condition}"
            )
        values = {name: to_column(name, value) for name, value in change.values.items()}
        values |= {"key": change.key, "known_attempts": change.attempts}
        updated = self._execute(statement, values).rowcount > 0
        if updated and change.output is not None:
            self._execute(_SET_OUTPUT, {"key": change.key, "body": change.output})
        return updated

    def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Return the entries of these keys, without their outputs."""
        rows = self._select_in(f"{_SELECT} WHERE inputs.key IN", keys)
        return {row[0]: to_entry(row) for row in rows}

    def known_jobs(self, request_ids: Sequence[str]) -> set[str]:
        """Return the ids of jobs, among these, that belong to an input."""
        rows = self._select_in("SELECT request_id FROM inputs WHERE request_id IN", request_ids)
        return {row[0] for row in rows}

    def longest_job(self) -> float:
        """Return the longest time from a submit to the end of its job, in seconds."""
        with self._using("read"):
            alone, longest = self._execute(_LONGEST, {}).fetchone()
        return float(alone or longest or 0)

    def _select_in(self, statement: str, values: Sequence[str]) -> Iterator[Any]:
        """Execute a query that ends with IN for some values at a time."""
        for start in range(0, len(values), CHUNK):
            chunk = {f"v{i}": value for i, value in enumerate(values[start : start + CHUNK])}
            names = ", ".join(f":{name}" for name in chunk)
            with self._using("read"):
                rows = self._execute(f"{statement} ({names})", chunk).fetchall()
            yield from rows

    def output(self, key: str) -> bytes | None:
        """Return the output of an input as JSON, or ``None``."""
        with self._using("read"):
            statement = "SELECT body FROM outputs WHERE key = :key"
            row = self._execute(statement, {"key": key}).fetchone()
        return None if row is None else bytes(row[0])

    def entries(self, state: State | None) -> Iterator[Entry]:
        """Iterate over all entries, or over those of one state, without their outputs."""
        condition = "" if state is None else " AND state = :state"
        statement = f"{_SELECT} WHERE inputs.key > :last{condition} ORDER BY inputs.key LIMIT 1000"
        last = ""
        while True:  # page by page, so that writers can write in between
            with self._using("read"):
                values = {"last": last} if state is None else {"last": last, "state": state}
                rows = self._execute(statement, values).fetchall()
            if not rows:
                return
            yield from map(to_entry, rows)
            last = rows[-1][0]

    def summary(self) -> Summary:
        """Count the entries."""
        with self._using("read"):
            rows = self._execute(_SUMMARY.format(cost=self._cost_as_number), {}).fetchall()
        # Sums of floats are not exact, and a budget may be used up to the last cent.
        costs = [Decimal(f"{row[4]:.12g}") for row in rows if row[4] is not None]
        return Summary(
            states={row[0]: row[1] for row in rows},
            attempts=sum(row[2] for row in rows),
            units=float(sum(row[3] or 0 for row in rows)),
            cost=sum(costs, Decimal(0)) if costs else None,
        )

    def note(self, name: str) -> str | None:
        """Return a named text, or ``None``."""
        with self._using("read"):
            statement = "SELECT value FROM notes WHERE name = :name"
            row = self._execute(statement, {"name": name}).fetchone()
        return None if row is None else row[0]

    def find_upload(self, content: UploadContent) -> KnownUpload | None:
        """Return the latest upload of a content, or ``None``."""
        with self._using("read"):
            row = self._execute(_FIND_UPLOAD, identify(content)).fetchone()
        return None if row is None else KnownUpload(content, *row)

    def live_runs(self) -> dict[int, Run]:
        """Return the runs of processes that live, by number."""
        with self._using("read"):
            return {run.number: run for run in self._runs() if self._is_alive(run)}

    def ended_runs(self) -> list[Run]:
        """Return the runs of processes that have ended."""
        with self._using("read"):
            return [run for run in self._runs() if not self._is_alive(run)]

    def close(self) -> None:
        """Close the database. Closing it again does nothing."""
        with self._lock:
            self._run = None
            self._disconnect()

    @contextmanager
    def _using(self, action: str) -> Generator[None]:
        with self._lock, self._named_errors(f"{action} {self._subject}"):
            if action != "open" and self._run is None:
                raise JournalError(f"cannot {action} {self._subject}: it is closed")
            yield
