"""Journals in a SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fal_async.batch.errors import JournalDamagedError, JournalError
from fal_async.batch.sql import SQLJournalStore

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from contextlib import AbstractContextManager

    from fal_async.batch.entries import Run

__all__ = ["SQLiteJournalStore", "network_file_system"]

#: The mark of a journal in the header of its file: "fal ", in hexadecimal.
APPLICATION_ID: Final = 0x66616C20
#: The time to wait for other processes that write, in seconds.
BUSY_TIMEOUT: Final = 30.0
#: The types of file systems on which locks of SQLite do not work between machines.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        *("9p", "afs", "beegfs", "ceph", "cifs", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs"),
        *("nfs", "nfs4", "smb3", "smbfs", "webdav"),
        *("fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    }
)
_MOUNTS: Final = Path("/proc/self/mountinfo")


class SQLiteJournalStore(SQLJournalStore):
    """A journal in a SQLite file: write-ahead log, one writer at a time.

    Args:
        path: The path of the file; ``":memory:"`` keeps it in memory, and in a
            temporary file what is too large.
        fsync: Whether each commit is on the disk before it is confirmed.
    """

    _cost_as_number = "CAST(cost AS REAL)"
    _types: ClassVar[Mapping[str, str]] = {
        "serial": "INTEGER PRIMARY KEY",
        "double": "REAL",
        "bytes": "BLOB",
        "options": "WITHOUT ROWID",
    }

    def __init__(self, path: str, *, fsync: bool) -> None:
        super().__init__()
        self._path = path
        self._fsync = fsync
        self._connection: sqlite3.Connection | None = None
        self._own_lock: FileLock | None = None

    @property
    def _name(self) -> str:
        """The path for SQLite: the large outputs of a journal in memory go to a temporary file."""
        return "" if self._path == ":memory:" else self._path

    @property
    def _subject(self) -> str:
        return f"the journal {self._path}"

    def _connect(self, *, read_only: bool = False) -> None:
        if self._path != ":memory:" and _MOUNTS.exists():
            kind = network_file_system(Path(self._path).resolve(), _MOUNTS.read_text("utf-8"))
            if kind is not None:
                raise JournalError(
                    f"cannot open {self._subject}: it is on a network file system ({kind}), where "
                    "SQLite loses data; use a local disk, or PostgreSQL for several machines"
                )
        # Threads use the connection one at a time. Transactions begin explicitly.
        self._connection = connection = sqlite3.connect(
            _read_only_uri(self._path) if read_only else self._name,
            uri=read_only,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
        )
        (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        if count and mark != APPLICATION_ID:
            raise JournalDamagedError(
                f"cannot open {self._subject}: the database is not a journal; use another path"
            )
        if read_only:
            connection.execute("PRAGMA query_only = ON")
            return
        wanted = "MEMORY" if self._path == ":memory:" else "WAL"
        (mode,) = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
        if mode not in {"wal", "memory"}:
            raise JournalError(
                f"cannot open {self._subject}: its file system does not support a write-ahead log; "
                "use a local disk"
            )
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._fsync else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys = ON")
        (finding,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise sqlite3.DatabaseError(finding)

    def _schema_version(self) -> int:
        version: int = self._execute("PRAGMA user_version", {}).fetchone()[0]
        return version

    def _changing_schema(self) -> AbstractContextManager[None]:
        return self._transaction()

    def _set_schema_version(self, version: int) -> None:
        self._execute(f"PRAGMA application_id = {APPLICATION_ID}", {})
        self._execute(f"PRAGMA user_version = {version}", {})

    def _execute(self, statement: str, values: Mapping[str, Any]) -> sqlite3.Cursor:
        if self._connection is None:
            raise JournalError(f"cannot use {self._subject}: it is closed")
        return self._connection.execute(statement, values)

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        self._execute("BEGIN IMMEDIATE", {})
        try:
            yield
            self._execute("COMMIT", {})
        except BaseException:
            if self._connection is not None and self._connection.in_transaction:
                self._execute("ROLLBACK", {})
            raise

    @contextlib.contextmanager
    def _named_errors(self, action: str) -> Generator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise JournalError(f"cannot {action}: {error}{_remedy(str(error))}") from error
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
                raise JournalDamagedError(
                    f"cannot {action}: the file is not a journal; use another path"
                ) from error
            reason = " ".join(str(error).split())
            raise JournalDamagedError(
                f"cannot {action}: the file is damaged ({reason}); restore a copy, or save what is "
                f"left with: sqlite3 {self._path} .recover"
            ) from error
        except OSError as error:
            raise JournalError(f"cannot {action}: {error.strerror or error}") from error

    def _lock_path(self, name: str) -> Path:
        return Path(f"{self._path}-run-{name}")

    def _hold(self, name: str) -> None:
        if self._path != ":memory:":
            self._own_lock = FileLock(self._lock_path(name))
            self._own_lock.acquire()

    def _is_alive(self, run: Run) -> bool:
        if self._run is not None and run.name == self._run.name:
            return True
        if not self._lock_path(run.name).exists():
            return False
        lock = FileLock(self._lock_path(run.name))
        if not lock.acquire():
            return True
        lock.release()
        return False

    def compact(self) -> None:
        """Release the space of removed entries, and shorten the write-ahead log."""
        with self._using("compact"):
            self._execute("VACUUM", {})
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)", {})

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        lock, self._own_lock = self._own_lock, None
        if lock is not None:
            lock.release()


def _read_only_uri(path: str) -> str:
    """Return the URI by which SQLite reads a file, also where it cannot write its log."""
    file = Path(path).resolve()
    if os.access(file, os.W_OK) and os.access(file.parent, os.W_OK):
        mode = "rw"  # the last one to close the file removes its log
    else:
        mode = "ro" if Path(f"{file}-wal").exists() else "ro&immutable=1"
    return f"{file.as_uri()}?mode={mode}"


def _remedy(message: str) -> str:
    """Return the remedy for an error of SQLite, or nothing."""
    remedies = {
        "full": "free some space, and start again: everything that was sent is recorded",
        "readonly": "make the file and its folder writable",
        "unable to open": "check the path and its permissions; the folder must exist",
        "locked": "close the program that has locked it, and start again",
        "disk I/O error": "check the disk and its free space, and start again",
    }
    found = [remedy for sign, remedy in remedies.items() if sign in message]
    return f"; {found[0]}" if found else ""


def network_file_system(path: Path, mounts: str) -> str | None:
    """Return the type of the network file system of a path; ``None`` for a local one.

    Args:
        path: An absolute path without symbolic links. The file need not exist.
        mounts: The text of ``/proc/self/mountinfo``.
    """
    found, length = "", -1
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        mount = Path(fields.split()[4].encode().decode("unicode_escape"))
        if path.is_relative_to(mount) and len(mount.parts) >= length:
            found, length = rest.split()[0], len(mount.parts)
    return found if found in NETWORK_FILE_SYSTEMS else None


class FileLock:
    """An exclusive lock of a file, held until `release` or the end of the process.

    Args:
        path: The path of the file, which is created if necessary.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._pid = 0

    def acquire(self) -> bool:
        """Lock the file without waiting; return whether it was free.

        Raises:
            OSError: The file cannot be created.
        """
        is_fixed = self._path.exists() and not os.access(self._path, os.W_OK)
        mode = os.O_RDONLY if is_fixed else os.O_CREAT | os.O_RDWR
        descriptor = os.open(self._path, mode | getattr(os, "O_CLOEXEC", 0))
        try:
            if sys.platform == "win32":
                import msvcrt  # exists on Windows only

                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl  # does not exist on Windows

                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor, self._pid = descriptor, os.getpid()
        return True

    def release(self) -> None:
        """Unlock and remove the file. Releasing it again does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                if self._pid == os.getpid():  # a forked process closes its copy, and no more
                    self._path.unlink()
            os.close(descriptor)
