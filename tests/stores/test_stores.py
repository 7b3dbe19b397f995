"""Both stores: one set of rules, and the file that processes share."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fal_async import FalClientError, InvalidRequestError
from fal_async.stores import MemoryStore, SQLiteStore, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(clock=clock)
        return
    async with SQLiteStore(tmp_path / "store.db", clock=clock) as opened:
        yield opened


async def test_values_are_set_read_and_removed(store: Store) -> None:
    assert await store.get("a") is None
    await store.set("a", "1", expires_in=10)
    await store.set("a", "2", expires_in=10)
    await store.set("b", "\N{SNOWMAN}", expires_in=10)
    assert (await store.get("a"), await store.get("b")) == ("2", "\N{SNOWMAN}")
    await store.delete("a")
    await store.delete("a")
    assert await store.get("a") is None


async def test_add_keeps_the_first_value(store: Store) -> None:
    assert await store.add("a", "1", expires_in=10)
    assert not await store.add("a", "2", expires_in=10)
    assert await store.get("a") == "1"


async def test_one_of_many_concurrent_adds_wins(store: Store) -> None:
    won: list[int] = []

    async def add(number: int) -> None:
        if await store.add("a", str(number), expires_in=10):
            won.append(number)

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(add, number)
    [winner] = won
    assert await store.get("a") == str(winner)


async def test_values_expire_to_the_second(store: Store, clock: Clock) -> None:
    await store.set("a", "1", expires_in=10)
    clock.now += 9.5
    assert await store.get("a") == "1"
    assert not await store.add("a", "2", expires_in=10)
    clock.now += 0.5
    assert await store.get("a") is None
    assert await store.add("a", "3", expires_in=10)
    assert await store.get("a") == "3"


async def test_a_value_set_again_lives_longer(store: Store, clock: Clock) -> None:
    await store.set("a", "1", expires_in=10)
    await store.set("a", "2", expires_in=100)
    clock.now += 50
    await store.set("b", "1", expires_in=10)
    assert await store.get("a") == "2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, "b", 10), "key must be a str, got 1"),
        (("a", b"b", 10), "value must be a str, got b'b'"),
        (("a", "b", 0), "expires_in must be a positive, finite number of seconds, got 0"),
        (("a", "b", None), "expires_in must be a number of seconds, got None"),
    ],
)
async def test_bad_entries_are_refused(store: Store, arguments: Any, message: str) -> None:
    key, value, expires_in = arguments
    for call in (store.add, store.set):
        with pytest.raises(InvalidRequestError) as caught:
            await call(key, value, expires_in=expires_in)
        assert str(caught.value) == message


async def test_expired_values_leave_the_memory(clock: Clock) -> None:
    store = MemoryStore(clock=clock)
    for number in range(100):
        await store.add(str(number), "", expires_in=10)
    clock.now += 10
    await store.set("last", "", expires_in=10)
    assert len(store) == 1
    assert len(store._expiry_heap) == 1


async def test_expired_values_leave_the_file(clock: Clock, tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "store.db", clock=clock) as store:
        for number in range(10):
            await store.add(str(number), "", expires_in=10)
        clock.now += 10
        await store.set("last", "", expires_in=10)
        assert store._connection is not None
        rows = store._connection.execute("SELECT key FROM entries").fetchall()
    assert rows == [("last",)]


async def test_values_survive_a_closed_store(tmp_path: Path) -> None:
    async with SQLiteStore(str(tmp_path / "store.db")) as store:
        await store.set("a", "1", expires_in=1000)
    assert await store.get("a") == "1"  # opens the file again
    await store.aclose()
    await store.aclose()


async def test_forgotten_store_closes_its_file(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    await store.set("a", "1", expires_in=1000)
    del store
    async with SQLiteStore(tmp_path / "store.db") as again:
        assert await again.get("a") == "1"


ADD = """
import sys, anyio
from fal_async.stores import SQLiteStore
async def main():
    async with SQLiteStore(sys.argv[1]) as store:
        print(sum([await store.add(str(n), "", expires_in=1000) for n in range(200)]))
anyio.run(main)
"""


@pytest.mark.slow
def test_processes_share_the_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ADD, str(tmp_path / "store.db")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    added = [int(process.communicate(timeout=60)[0]) for process in running]
    assert sum(added) == 200


async def test_unusable_file_is_a_clear_error(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "missing" / "store.db")
    with pytest.raises(FalClientError, match=r"^cannot use the store .*missing.*: unable to open"):
        await store.get("a")
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(FalClientError, match="file is not a database"):
        await SQLiteStore(tmp_path / "text").add("a", "", expires_in=1)


@pytest.mark.parametrize("path", ["", ":memory:", None, 3, b"a"])
def test_path_must_be_that_of_a_file(path: Any) -> None:
    with pytest.raises(InvalidRequestError, match="path must be the path of a file, got "):
        SQLiteStore(path)
