"""Journals in PostgreSQL, which several machines share."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fal_async.batch.errors import JournalDamagedError, JournalError
from fal_async.batch.sql import SQLJournalStore

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import psycopg

    from fal_async.batch.entries import Run
    from fal_async.batch.sql import Cursor

__all__ = ["PostgresJournalStore", "without_password"]

#: The first number of the advisory locks: "fal ", in hexadecimal. The second is a hash of the name.
LOCK_CLASS: Final = 0x66616C20
#: The comment of the table `inputs`, which marks a journal and its version.
_MARK: Final = "journal of fal_async, schema version "
_PARAMETER: Final = re.compile(r"(?<!:):(\w+)")


class PostgresJournalStore(SQLJournalStore):
    """A journal in a PostgreSQL database, in tables of the first schema of the search path.

    Args:
        url: The URL of the database.
        fsync: Whether each commit is on the disk before it is confirmed.
    """

    _cost_as_number = "CAST(cost AS NUMERIC)"
    _types: ClassVar[Mapping[str, str]] = {
        "serial": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "double": "DOUBLE PRECISION",
        "bytes": "BYTEA",
        "options": "",
    }

    def __init__(self, url: str, *, fsync: bool) -> None:
        super().__init__()
        self._url = url
        self._fsync = fsync
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def _subject(self) -> str:
        return f"the journal {without_password(self._url)}"

    def _connect(self, *, read_only: bool = False) -> None:
        try:
            import psycopg  # an extra
        except ImportError as error:
            raise JournalError(
                f"cannot open {self._subject}: psycopg is not installed; install the extra: "
                'pip install "fal-async[postgres]"'
            ) from error
        try:
            self._connection = psycopg.connect(self._url, autocommit=True)
        except psycopg.ProgrammingError:  # its message may quote the password
            raise JournalError(
                f"cannot open {self._subject}: its URL is invalid; special characters of user and "
                "password must be percent-encoded"
            ) from None
        level = "on" if self._fsync else "off"
        self._execute(f"SET synchronous_commit = {level}", {})
        if read_only:
            self._execute("SET default_transaction_read_only = on", {})

    @contextmanager
    def _changing_schema(self) -> Generator[None]:
        # The lock is acquired before the transaction, which might not see tables created since.
        values = {"lock_class": LOCK_CLASS}
        self._execute("SELECT pg_advisory_lock(:lock_class)", values)
        try:
            with self._transaction():
                yield
        finally:
            self._execute("SELECT pg_advisory_unlock(:lock_class)", values)

    def _set_schema_version(self, version: int) -> None:
        self._execute(f"COMMENT ON TABLE inputs IS '{_MARK}{version}'", {})

    def _schema_version(self) -> int:
        statement = """
            SELECT to_regclass('inputs') IS NOT NULL,
                obj_description(to_regclass('inputs'), 'pg_class')
        """
        exists, mark = self._execute(statement, {}).fetchone()
        if not exists:
            return 0
        if mark is None or not mark.startswith(_MARK):
            raise JournalDamagedError(
                f"cannot open {self._subject}: the table inputs is not a journal; use another "
                "database or schema"
            )
        return int(mark.removeprefix(_MARK))

    def _execute(self, statement: str, values: Mapping[str, Any]) -> Cursor:
        if self._connection is None:
            raise JournalError(f"cannot use {self._subject}: it is closed")
        return self._connection.execute(_with_percent(statement).encode(), values)

    @contextmanager
    def _transaction(self) -> Generator[None]:
        if self._connection is None:
            raise JournalError(f"cannot use {self._subject}: it is closed")
        with self._connection.transaction():
            yield

    @contextmanager
    def _named_errors(self, action: str) -> Generator[None]:
        try:
            yield
        except JournalError:
            raise
        except Exception as error:
            import psycopg  # an extra; the error may be its own

            if not isinstance(error, psycopg.Error):
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise JournalError(
                f"cannot {action}: {reason[0]}; start again when the database is available: "
                "everything that was sent is recorded"
            ) from error

    def _hold(self, name: str) -> None:
        values = {"lock_class": LOCK_CLASS, "name": name}
        self._execute("SELECT pg_advisory_lock(:lock_class, hashtext(:name))", values)

    def _is_alive(self, run: Run) -> bool:
        statement = """
            SELECT count(*) FROM pg_locks
            WHERE locktype = 'advisory' AND granted AND database = (
                SELECT oid FROM pg_database WHERE datname = current_database()
            ) AND classid = :lock_class AND objid = CAST(
                (CAST(hashtext(:name) AS BIGINT) + 4294967296) % 4294967296 AS OID
            ) AND objsubid = 2
        """
        values = {"lock_class": LOCK_CLASS, "name": run.name}
        return bool(self._execute(statement, values).fetchone()[0])

    def compact(self) -> None:
        """Release the space of removed entries."""
        with self._using("compact"):
            self._execute("VACUUM inputs, outputs", {})

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(Exception):  # of a connection that is broken, so the locks are released
            # The server releases them some time after the connection is closed otherwise.
            connection.execute("SELECT pg_advisory_unlock_all()")
        connection.close()


def without_password(path: str) -> str:
    """Return the URL of a database without user, password and options; a path as it is."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return path
    start = rest.partition("/")[0].rfind("@") + 1  # a question mark may be part of a password
    return f"{scheme}://{rest[start:].partition('?')[0].rpartition('@')[2]}"


@lru_cache(maxsize=64)
def _with_percent(statement: str) -> str:
    """Return the statement with parameters as psycopg writes them: ``%(key)s`` for ``:key``."""
    return _PARAMETER.sub(r"%(\1)s", statement.replace("%", "%%"))
