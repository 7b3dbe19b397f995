"""Journals in SQLite files: damage, other programs, full disks and network file systems."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fal_async.batch.entries import Begin
from fal_async.batch.errors import JournalDamagedError, JournalError, JournalTooNewError
from fal_async.batch.sqlite import SQLiteJournalStore, network_file_system


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def fill(path: Path, inputs: int = 300) -> None:
    store = SQLiteJournalStore(str(path), fsync=False)
    store.open(exclusive=True)
    store.commit([Begin(f"key-{n}", "acme/cat", n, bytes(16), 1.0) for n in range(inputs)])
    store.close()


def test_commits_are_on_the_disk(path: Path) -> None:
    store = SQLiteJournalStore(str(path), fsync=True)
    store.open(exclusive=True)
    settings = [
        store._execute(f"PRAGMA {name}", {}).fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    ]
    assert settings == ["wal", 2, 1]
    store.close()


def test_damaged_file_is_refused(path: Path) -> None:
    fill(path)
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 7] = b"\xff" * 8192
    path.write_bytes(content)
    with pytest.raises(JournalDamagedError, match=r"is damaged .* sqlite3 .* \.recover"):
        SQLiteJournalStore(str(path), fsync=True).open(exclusive=True)
    assert path.read_bytes() == bytes(content)


def test_file_of_another_kind_is_refused(path: Path) -> None:
    content = "prompt,seed\na cat,7\n" * 100
    path.write_text(content)
    with pytest.raises(JournalDamagedError, match="the file is not a journal; use another path"):
        SQLiteJournalStore(str(path), fsync=True).open(exclusive=True)
    assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_other_database_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (id INTEGER)")
    connection.close()
    with pytest.raises(JournalDamagedError, match="is not a journal; use another path"):
        SQLiteJournalStore(str(path), fsync=True).open(exclusive=True)


def test_newer_schema_is_refused(path: Path) -> None:
    fill(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(JournalTooNewError, match=r"schema version 99, .*; update fal_async"):
        SQLiteJournalStore(str(path), fsync=True).open(exclusive=True)
    assert path.read_bytes() == before


def test_locked_database_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fal_async.batch.sqlite.BUSY_TIMEOUT", 0.05)
    fill(path)
    store = SQLiteJournalStore(str(path), fsync=True)
    store.open(exclusive=True)
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match=r"database is locked; close the program"):
        store.commit([Begin("new", "acme/cat", 0, b"", 1.0)])
    other.close()
    assert store.commit([Begin("new", "acme/cat", 0, b"", 1.0)]) == [True]
    store.close()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    store = SQLiteJournalStore(str(tmp_path / "missing" / "journal.db"), fsync=True)
    with pytest.raises(JournalError, match="the folder must exist"):
        store.open(exclusive=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of files")
def test_full_disk_records_nothing(path: Path) -> None:
    program = """
import resource, signal, sys
from fal_async.batch.entries import Begin
from fal_async.batch.errors import JournalError
from fal_async.batch.sqlite import SQLiteJournalStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = SQLiteJournalStore(sys.argv[1], fsync=True)
store.open(exclusive=True)
store.commit([Begin("first", "acme/cat", 0, b"", 1.0)])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    store.commit([Begin(f"key-{n}", "acme/cat", n, bytes(400), 1.0) for n in range(20_000)])
except JournalError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "cannot write the journal" in result.stdout
    assert "start again" in result.stdout
    store = SQLiteJournalStore(str(path), fsync=True)
    store.open(exclusive=True)
    assert [entry.key for entry in store.entries(None)] == ["first"]
    store.close()


MOUNTS = """\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /mnt rw shared:1 - nfs4 server:/export rw,vers=4.2
31 30 8:2 / /mnt/local\\040disk rw - xfs /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/journal.db", None),
        ("/mnt/journal.db", "nfs4"),
        ("/mnt/local disk/journal.db", None),
        ("/mnta/journal.db", None),
    ],
)
def test_network_file_systems_are_known(path: str, kind: str | None) -> None:
    assert network_file_system(Path(path), MOUNTS) == kind
