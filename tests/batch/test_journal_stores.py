"""The databases of journals: the same behaviour on SQLite and on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from fal_async._files.attachment_uploads import UploadContent
from fal_async.batch.entries import Begin, Entry, Forget, KnownUpload, Note, Update
from fal_async.batch.errors import JournalError, JournalInUseError
from fal_async.batch.journal import open_store
from fal_async.batch.sql import SQLJournalStore
from tests.support.subprocesses import started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fal_async.batch.journal_store import JournalStore

CAT = "acme/cat"


@pytest.fixture
def store(journal_path: str) -> Iterator[JournalStore]:
    """An open, shared store."""
    opened = open_store(journal_path, fsync=True)
    opened.open(exclusive=False)
    yield opened
    opened.close()


def begin(key: str, known: Entry | None = None) -> Begin:
    return Begin(key, CAT, 7, b"\x01\x02", 100.5, known)


def test_new_input_is_claimed_once(store: JournalStore) -> None:
    assert store.commit([begin("a"), begin("a"), begin("b")]) == [True, False, True]
    entry = store.find(["a", "missing"])["a"]
    assert (entry.state, entry.attempts, entry.application) == ("submitting", 1, CAT)
    assert (entry.position, entry.digest, entry.tried_at) == (7, b"\x01\x02", 100.5)


def test_known_input_is_claimed_once(store: JournalStore) -> None:
    store.commit([begin("a"), Update("a", 1, {"state": "failed", "error": {"type": "E"}})])
    known = store.find(["a"])["a"]
    assert known.error == {"type": "E"}
    assert store.commit([begin("a", known), begin("a", known)]) == [True, False]
    entry = store.find(["a"])["a"]
    assert (entry.state, entry.attempts, entry.error) == ("submitting", 2, None)


def test_update_of_earlier_attempt_is_ignored(store: JournalStore) -> None:
    store.commit([begin("a"), Update("a", 1, {"state": "unsure"})])
    store.commit([begin("a", store.find(["a"])["a"])])
    assert store.commit([Update("a", 1, {"state": "running", "request_id": "old"})]) == [False]
    assert store.commit([Update("a", 2, {"state": "running", "request_id": "new"})]) == [True]
    assert store.find(["a"])["a"].request_id == "new"


def test_outcome_is_read_back(store: JournalStore) -> None:
    values = {
        "state": "saved",
        "request_id": "r-1",
        "handle": {"status_url": "https://x"},
        "ended_at": 2.5,
        "units": 1.5,
        "cost": Decimal("0.0375"),
        "files": ["a.png", "b.png"],
        "is_written": True,
    }
    store.commit([begin("a"), Update("a", 1, values, b'{"seed":7}')])
    entry = store.find(["a"])["a"]
    assert {name: getattr(entry, name) for name in values} == {
        **values,
        "files": ("a.png", "b.png"),
    }
    assert store.output("a") == b'{"seed":7}'


def test_longest_job_has_not_waited_for_another_process(store: JournalStore) -> None:
    assert store.longest_job() == 0.0
    now = time.time()
    ended = {"state": "ended", "tried_at": now - 1000.0, "ended_at": now + 1000.0}
    store.commit([begin("a"), Update("a", 1, ended)])  # this process began meanwhile
    assert store.longest_job() == pytest.approx(2000.0)
    store.commit([begin("b"), Update("b", 1, {"state": "saved", "ended_at": 150.5})])
    store.commit([begin("c"), Update("c", 1, {"state": "unsure", "ended_at": 300.5})])
    assert store.longest_job() == 50.0


def test_next_attempt_removes_the_output(store: JournalStore) -> None:
    store.commit([begin("a"), Update("a", 1, {"state": "ended"}, b"{}")])
    store.commit([begin("a", store.find(["a"])["a"])])
    assert store.output("a") is None


def test_forgotten_input_is_removed(store: JournalStore) -> None:
    store.commit([begin("a"), Update("a", 1, {"state": "ended"}, b"{}")])
    assert store.commit([Forget("a"), Forget("a")]) == [True, False]
    assert store.find(["a"]) == {}
    assert store.output("a") is None


def test_failed_commit_changes_nothing(store: JournalStore) -> None:
    with pytest.raises(JournalError):
        store.commit([begin("a"), Update("a", 1, {"nonsense": 1})])
    assert store.find(["a"]) == {}
    assert store.commit([begin("a")]) == [True]


def test_commits_in_other_orders_do_not_deadlock(store: JournalStore, journal_path: str) -> None:
    other = open_store(journal_path, fsync=True)
    other.open(exclusive=False)
    keys = [f"{n:03}" for n in range(200)]
    store.commit([begin(key) for key in keys])
    updates = [Update(key, 1, {"units": 1.0}) for key in keys]

    def commit(store: JournalStore, changes: list[Update]) -> list[bool]:
        return [applied for _ in range(5) for applied in store.commit(changes)]

    with ThreadPoolExecutor() as threads:
        forward = threads.submit(commit, store, updates)
        assert all(commit(other, updates[::-1]))
        assert all(forward.result())
    other.close()


def test_entries_are_listed_page_by_page(store: JournalStore) -> None:
    keys = [f"{n:05}" for n in range(2500)]
    store.commit([begin(key) for key in keys])
    store.commit([Update(key, 1, {"state": "lost"}) for key in keys[::2]])
    assert [entry.key for entry in store.entries(None)] == keys
    assert [entry.key for entry in store.entries("lost")] == keys[::2]
    assert len(store.find(keys)) == 2500


def test_summary_counts_states_and_costs(store: JournalStore) -> None:
    assert store.summary().cost is None
    store.commit([begin("a"), begin("b"), begin("c")])
    paid = {"state": "ended", "units": 2.0, "cost": Decimal("0.1")}
    store.commit([Update("a", 1, paid), Update("b", 1, paid)])
    summary = store.summary()
    assert summary.states == {"ended": 2, "submitting": 1}
    assert (summary.total, summary.attempts, summary.units) == (3, 3, 4.0)
    assert summary.cost == Decimal("0.2")


def test_note_is_replaced(store: JournalStore) -> None:
    assert store.note("size") is None
    store.commit([Note("size", "1")])
    store.commit([Note("size", "2")])
    assert store.note("size") == "2"


CONTENT = UploadContent(bytes(32), 7, "image/png", "", None, "a.png")


def test_upload_is_found_by_its_content(store: JournalStore) -> None:
    assert store.find_upload(CONTENT) is None
    store.commit([KnownUpload(CONTENT, "https://old", 1.0, None)])
    store.commit([KnownUpload(CONTENT, "https://new", 2.0, 9.0)])
    assert store.find_upload(CONTENT) == KnownUpload(CONTENT, "https://new", 2.0, 9.0)
    assert store.find_upload(replace(CONTENT, file_name="b.png")) is not None
    assert store.find_upload(replace(CONTENT, lifecycle="{}")) is None


def test_journal_of_first_version_is_continued(store: JournalStore, journal_path: str) -> None:
    assert isinstance(store, SQLJournalStore)
    store.commit([begin("a"), Update("a", 1, {"state": "ended"}, b"{}")])
    store._execute("DROP TABLE uploads", {})
    store._set_schema_version(1)
    store.close()
    later = open_store(journal_path, fsync=True)
    later.open(exclusive=True)
    assert later.output("a") == b"{}"
    assert later.commit([KnownUpload(CONTENT, "https://x", 1.0, None)]) == [True]
    later.close()


def test_two_shared_stores_see_each_other(store: JournalStore, journal_path: str) -> None:
    other = open_store(journal_path, fsync=False)
    run = other.open(exclusive=False)
    store.commit([begin("a")])
    assert other.find(["a"])["a"].run != run.number
    assert set(store.live_runs()) == {other.find(["a"])["a"].run, run.number}
    other.close()
    assert run.number not in store.live_runs()


def test_stores_opened_at_once_share_their_tables(journal_path: str) -> None:
    stores = [open_store(journal_path, fsync=False) for _ in range(8)]
    barrier = Barrier(len(stores), timeout=10)

    def open_at_once(store: JournalStore) -> int:
        barrier.wait()
        return store.open(exclusive=False).number

    with ThreadPoolExecutor(len(stores)) as threads:
        numbers = set(threads.map(open_at_once, stores))
    assert len(numbers) == len(stores)
    for store in stores:
        assert set(store.live_runs()) == numbers
    for store in stores:
        store.close()


def test_second_exclusive_store_is_refused(journal_path: str) -> None:
    first, second = open_store(journal_path, fsync=True), open_store(journal_path, fsync=True)
    run = first.open(exclusive=True)
    with pytest.raises(JournalInUseError, match=f"in use by process {run.pid} on {run.host}"):
        second.open(exclusive=True)
    first.close()
    assert second.open(exclusive=True).number > run.number
    second.close()


def test_lock_is_free_after_a_kill(journal_path: str) -> None:
    program = (
        "import sys; from fal_async.batch.journal import open_store\n"
        "store = open_store(sys.argv[1], fsync=True); print(store.open(exclusive=True).number)\n"
        "sys.stdout.flush(); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, journal_path]
    with started(command, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        store = open_store(journal_path, fsync=True)
        with pytest.raises(JournalInUseError, match=f"process {process.pid}"):
            store.open(exclusive=True)
        process.kill()
        process.wait()
    for _ in range(1000):  # the server of a database notices the end of the connection later
        with suppress(JournalInUseError):
            run = store.open(exclusive=True)
            break
    else:
        pytest.fail("the lock of the killed process was not released")
    assert number not in store.live_runs()
    assert run.number in store.live_runs()
    store.close()


def test_closed_store_cannot_be_used(store: JournalStore) -> None:
    store.close()
    store.close()
    with pytest.raises(JournalError, match="it is closed"):
        store.commit([begin("a")])
