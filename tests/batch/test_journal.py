"""Journals: group commits, failures, and the methods for people."""

from __future__ import annotations

import pickle
from traceback import format_exception
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fal_async import InvalidRequestError, Once
from fal_async.batch import Journal, JournalError, JournalInUseError
from fal_async.batch.entries import Begin, Update

if TYPE_CHECKING:
    from pathlib import Path


def begin(key: str) -> Begin:
    return Begin(key, "acme/cat", 0, b"", 1.0)


async def test_waiting_changes_share_a_commit(journal_path: str) -> None:
    journal = Journal(journal_path)
    await journal._open()

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(journal._commit, begin(f"key-{number}"))

    assert journal.changes == 200
    assert journal.commits <= 3
    await journal._aclose()
    assert journal.summary().states == {"submitting": 200}
    journal.close()


async def test_commit_waits_for_enough_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fal_async.batch.journal.GROUP_TIME", 60.0)
    journal = Journal(tmp_path / "journal.db")
    await journal._open()

    async def commit(number: int) -> None:
        for _ in range(10 * number):
            await anyio.lowlevel.checkpoint()  # the changes arrive one after the other
        await journal._commit(begin(f"key-{number}"), enough=8)

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(commit, number)

    assert (journal.changes, journal.commits) == (8, 1)
    await journal._aclose()


async def test_change_without_waiter_is_durable_at_end(journal_path: str) -> None:
    journal = Journal(journal_path)
    await journal._open()
    await journal._commit(begin("a"))
    journal._commit_soon(Update("a", 1, {"state": "running", "request_id": "r"}))
    await journal._aclose()
    assert journal["a"].request_id == "r"
    journal.close()


async def test_one_of_two_journals_claims(journal_path: str) -> None:
    first, second = Journal(journal_path, shared=True), Journal(journal_path, shared=True)
    await first._open()
    await second._open()
    claims: list[bool] = []

    async def claim(journal: Journal) -> None:
        claims.append(await journal._commit(begin("a")))

    async with anyio.create_task_group() as group:
        group.start_soon(claim, first)
        group.start_soon(claim, second)

    assert sorted(claims) == [False, True]
    await first._aclose()
    await second._aclose()


async def test_failed_commit_stops_the_journal(journal_path: str) -> None:
    journal = Journal(journal_path)
    await journal._open()
    with pytest.raises(JournalError, match="cannot write"):
        await journal._commit(Update("a", 1, {"nonsense": 1}))
    with pytest.raises(JournalError, match="cannot write"):
        await journal._commit(begin("a"))
    journal.close()
    await journal._open()
    assert await journal._commit(begin("a"))
    await journal._aclose()


def test_file_is_exclusive_and_database_shared(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    assert not Journal(path).shared
    assert Journal("postgresql://me@db.example/fal").shared
    with Journal(path), pytest.raises(JournalInUseError, match="shared=True"):
        Journal(path).summary()
    with Journal(path, shared=True), Journal(path):
        pass


def test_unsure_input_is_adopted(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        journal._opened().commit([begin("a"), Update("a", 1, {"state": "unsure"})])
        journal.adopt("a", "764cabcf-b745-4b3e-ae38-1200304cf45b")
        assert journal["a"].state == "running"
        assert journal["a"].request_id == "764cabcf-b745-4b3e-ae38-1200304cf45b"
        with pytest.raises(InvalidRequestError, match="a key of the journal"):
            journal.adopt("b", "764cabcf-b745-4b3e-ae38-1200304cf45b")


def test_forgotten_input_is_not_contained(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        journal._opened().commit([begin("a"), Update("a", 1, {"state": "ended"}, b'{"n":1}')])
        assert journal["a"].output == {"n": 1}
        assert "a" in journal
        journal.forget("a", "unknown")
        journal.compact()
        assert "a" not in journal
        with pytest.raises(KeyError):
            journal["a"]


def test_journal_is_pickled_by_its_path(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", shared=True, durable="process", keep_outputs=False)
    copy = pickle.loads(pickle.dumps(journal))
    assert (copy.path, copy.shared, copy.durable, copy.keep_outputs) == (
        str(tmp_path / "journal.db"),
        True,
        "process",
        False,
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db.example/fal", "postgresql://db.example/fal"),
        ("postgresql://db.example/fal?password=secret@", "postgresql://db.example/fal"),
        ("postgres://me:sec?ret@db.example:5432/fal", "postgres://db.example:5432/fal"),
        ("postgresql://me:sec/ret@db.example/fal", "postgresql://db.example/fal"),
    ],
)
def test_repr_hides_the_password_of_a_database(url: str, shown: str) -> None:
    assert repr(Journal(url)) == f"Journal({shown!r})"
    assert repr(Once("acme/app", journal=url)) == f"Once('acme/app', journal={shown!r})"


@pytest.mark.parametrize(
    "url", ["postgresql://me:secret@[::1/fal", "postgresql://me:sec%ret@db/fal"]
)
def test_error_of_an_invalid_url_hides_the_password(url: str) -> None:
    with pytest.raises(JournalError, match="URL is invalid") as caught:
        Journal(url).summary()
    assert "sec" not in "".join(format_exception(caught.value))


@pytest.mark.parametrize("path", ["", None, 7, "a\0b", b"x"])
def test_invalid_path_is_refused(path: Any) -> None:
    with pytest.raises(InvalidRequestError, match="journal must be a path"):
        Journal(path)


def test_invalid_durability_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="durable must be 'disk' or 'process'"):
        Journal(":memory:", durable="ram")  # type: ignore[arg-type]  # as the test is about
