"""`SQLiteStore`: values in a file that several processes may share."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Self, TypeVar

from fal_async._core.checks import check_file_path, explain
from fal_async._net.threads import Work, run_in_thread
from fal_async.errors import FalClientError, InvalidRequestError
from fal_async.stores._protocol import check_entry

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

__all__ = ["SQLiteStore"]

T = TypeVar("T")

#: The longest wait for another process that writes, in seconds.
BUSY_TIMEOUT: Final = 30.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, expires_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_expiry ON entries (expires_at);
"""
_ADD: Final = """
INSERT INTO entries (key, value, expires_at) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING
"""
_SET: Final = "INSERT OR REPLACE INTO entries (key, value, expires_at) VALUES (?, ?, ?)"
#: Connections of the parent of a forked process, which must not even close them.
_inherited: list[object] = []


class SQLiteStore:
    """A store in an SQLite file, which several processes of one machine may share.

    The file is opened by the first call, and all blocking work is done in worker threads. Values
    survive the end of the process. Those of the last moments before a power failure may be lost.

    Args:
        path: The path of the file. Its directory must exist, on a local disk.
        clock: Returns the Unix time in seconds.

    Raises:
        InvalidRequestError: The path is not a path.

    Example:
        >>> async def main(path: str) -> None:
        ...     async with fal_async.stores.SQLiteStore(path) as store:
        ...         await store.set("job", "done", expires_in=3600)
        ...     async with fal_async.stores.SQLiteStore(path) as store:
        ...         print(await store.get("job"))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     anyio.run(main, f"{folder}/store.db")
        done
    """

    def __init__(
        self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = check_file_path("path", path)
        if self._path == ":memory:":  # the name of a database without a file
            raise InvalidRequestError("path must be the path of a file, got ':memory:'")
        self._clock = clock
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._connection: sqlite3.Connection | None = None

    def __repr__(self) -> str:
        return f"SQLiteStore({self._path!r})"

    async def add(self, key: str, value: str, *, expires_in: float) -> bool:
        """Set the value of a key that has none; see `Store.add`.

        Args:
            key: The key.
            value: The value.
            expires_in: The lifetime of the value, in seconds.

        Returns:
            False if the key has a value. It stays as it is.

        Raises:
            InvalidRequestError: Key or value is not text, or the lifetime is not positive.
            FalClientError: The file cannot be used.
        """
        check_entry(key, value, expires_in)
        return await self._write(_ADD, lambda now: (key, value, now + expires_in)) == 1

    async def get(self, key: str) -> str | None:
        """Return the value of a key; ``None`` if it has none, or has expired.

        Raises:
            FalClientError: The file cannot be used.
        """

        def select(connection: sqlite3.Connection) -> str | None:
            query = "SELECT value FROM entries WHERE key = ? AND expires_at > ?"
            row = connection.execute(query, (key, self._clock())).fetchone()
            return None if row is None else str(row[0])

        return await self._run(select)

    async def set(self, key: str, value: str, *, expires_in: float) -> None:
        """Set the value of a key, and replace the one that it has.

        Args:
            key: The key.
            value: The value.
            expires_in: The lifetime of the value, in seconds.

        Raises:
            InvalidRequestError: Key or value is not text, or the lifetime is not positive.
            FalClientError: The file cannot be used.
        """
        check_entry(key, value, expires_in)
        await self._write(_SET, lambda now: (key, value, now + expires_in))

    async def delete(self, key: str) -> None:
        """Remove the value of a key, if it has one.

        Raises:
            FalClientError: The file cannot be used.
        """
        await self._write("DELETE FROM entries WHERE key = ?", lambda _: (key,))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the file. A later call opens it again."""

        def close() -> None:
            with self._lock:
                connection, self._connection = self._connection, None
                if connection is not None:
                    connection.close()

        await run_in_thread(close, Work.CLEANUP)

    async def _write(
        self, statement: str, parameters: Callable[[float], tuple[object, ...]]
    ) -> int:
        """Remove expired values and execute a statement; return the number of changed values."""

        def write(connection: sqlite3.Connection) -> int:
            with connection:  # one transaction, which takes the lock of writers at once
                now = self._clock()
                connection.execute("DELETE FROM entries WHERE expires_at <= ?", (now,))
                return connection.execute(statement, parameters(now)).rowcount

        return await self._run(write)

    async def _run(self, use: Callable[[sqlite3.Connection], T]) -> T:
        import sqlite3  # late, since it loads a library that few programs need

        def locked() -> T:
            if self._process != os.getpid():  # a thread of the parent may hold the lock
                _inherited.append(self._connection)
                self._process, self._lock, self._connection = os.getpid(), threading.Lock(), None
            with self._lock:
                if self._connection is None:
                    self._connection = self._connect()
                return use(self._connection)

        try:
            return await run_in_thread(locked, Work.STORES)
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise FalClientError(f"cannot use the store {self._path}: {explain(error)}") from error

    def _connect(self) -> sqlite3.Connection:
        import sqlite3  # late, as above

        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT, check_same_thread=False)
        try:
            # Commits append to a log and do not wait for the disk; readers do not block writers.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        weakref.finalize(self, connection.close)
        return connection
