"""Jobs that are started once: by calls, and by a callable in other processes."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fal_async import InvalidInputError, InvalidRequestError, Journal, Once
from fal_async._net import background
from fal_async.batch import ChangedInputError
from fal_async.batch.once import _open_journal
from fal_async.emulator import AppError, Fault
from fal_async.errors import SubmitOutcomeUnknownError
from tests.support.http import gated_echo
from tests.support.subprocesses import started

if TYPE_CHECKING:
    from pathlib import Path

    from fal_async import AsyncClient
    from fal_async.emulator import Emulator

ECHO = "acme/echo"


def echo(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


@pytest.fixture(autouse=True)
def registered(fal: Emulator) -> None:
    fal.register(ECHO, echo)


async def test_second_call_returns_the_output(
    fal: Emulator, client: AsyncClient, journal_path: str
) -> None:
    first = await client.once(ECHO, {"n": 1}, journal=journal_path)
    second = await client.once(ECHO, {"n": 1}, journal=journal_path)
    assert first == second == {"n": 1}
    assert second.request_id == first.request_id
    assert fal.counters(ECHO).executions == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_spellings_of_a_path_share_a_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = _open_journal("journal.db")
    assert _open_journal("./journal.db") is journal
    assert _open_journal(tmp_path / "journal.db") is journal
    assert _open_journal("other.db") is not journal


async def test_concurrent_calls_share_a_job(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    outputs: list[dict[str, Any]] = []

    async def call(n: int) -> None:
        outputs.append(await client.once(ECHO, {"n": n % 2}, journal=tmp_path / "journal.db"))

    async with anyio.create_task_group() as group:
        for n in range(10):
            group.start_soon(call, n)
    assert Counter(output["n"] for output in outputs) == {0: 5, 1: 5}
    assert fal.counters(ECHO).executions == 2


async def test_cancelled_call_leaves_the_job(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    gate = fal.gate()
    fal.register("acme/slow", gated_echo(gate))

    journal = tmp_path / "journal.db"
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: client.once("acme/slow", {"n": 1}, journal=journal))
        await fal.wait_for_counters("acme/slow", executions=1)
        with Journal(journal, shared=True) as opened:
            while not opened.summary().states.get("running"):
                await checkpoint()
        group.cancel_scope.cancel()
    gate.open()
    assert await client.once("acme/slow", {"n": 1}, journal=journal) == {"n": 1}
    assert fal.counters("acme/slow").executions == 1
    assert fal.count("cancel") == 0


async def test_failure_is_raised_each_time(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    @fal.endpoint("acme/picky")
    def picky(arguments: dict[str, Any]) -> dict[str, Any]:
        raise AppError(422, [{"loc": ["body", "n"], "msg": "too small", "type": "value_error"}])

    for _ in range(2):
        with pytest.raises(InvalidInputError) as caught:
            await client.once("acme/picky", {"n": 1}, journal=tmp_path / "journal.db")
        assert caught.value.details[0].message == "too small"
        assert caught.value.request_id is not None
    assert fal.counters("acme/picky").executions == 1


async def test_unknown_outcome_is_raised(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    fal.fail(ECHO, Fault(route="submit", drop_response=True, times=1))
    with pytest.raises(SubmitOutcomeUnknownError):
        await client.once(ECHO, {"n": 1}, journal=tmp_path / "journal.db", unsure="report")
    assert await client.once(ECHO, {"n": 1}, journal=tmp_path / "journal.db") == {"n": 1}
    assert fal.counters(ECHO).executions == 1


async def test_key_of_other_content_is_refused(client: AsyncClient, tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    await client.once(ECHO, {"n": 1}, journal=journal, key="a")
    with pytest.raises(ChangedInputError):
        await client.once(ECHO, {"n": 2}, journal=journal, key="a")


async def test_once_adds_columns(fal: Emulator, tmp_path: Path) -> None:
    draw = Once(
        ECHO,
        journal=tmp_path / "journal.db",
        arguments={"prompt": "text"},
        key=lambda: fal.key,
        hosts=fal.hosts,
        concurrency=2,
    )
    row = await draw({"text": "a cat", "id": 7})
    assert (row["text"], row["id"], row["fal_output"]) == ("a cat", 7, {"prompt": "a cat"})
    assert row["fal_request_id"]
    assert row["fal_error"] is None
    columns = await draw.rows({"text": ["a cat", "a fox"], "id": [7, 8]})
    assert columns["fal_output"] == [{"prompt": "a cat"}, {"prompt": "a fox"}]
    assert fal.counters(ECHO).executions == 2


def test_stopped_loop_has_no_work_left(fal: Emulator, tmp_path: Path) -> None:
    """Some engines stop their loop, and never end it: threads of later work would never end."""
    draw = Once(ECHO, journal=tmp_path / "journal.db", key=fal.key, hosts=fal.hosts)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(draw({"n": 1}))
        assert loop not in background._asyncio_tasks
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def test_error_is_a_column(fal: Emulator, tmp_path: Path) -> None:
    @fal.endpoint("acme/broken")
    def broken(arguments: dict[str, Any]) -> dict[str, Any]:
        raise AppError(422, "no")

    options: dict[str, Any] = {"journal": tmp_path / "journal.db", "hosts": fal.hosts}
    row = await Once("acme/broken", key=fal.key, **options)({"n": 1})
    assert (row["fal_output"], row["fal_error"]) == (None, "no")
    with pytest.raises(InvalidInputError):
        await Once("acme/broken", key=fal.key, errors="raise", **options)({"n": 1})


def key_provider() -> str:
    return "a-key"


def test_once_is_pickled_without_a_key(tmp_path: Path) -> None:
    draw = Once(ECHO, journal=tmp_path / "journal.db", key=key_provider)
    copy = pickle.loads(pickle.dumps(draw))
    assert repr(copy) == repr(draw)
    with pytest.raises(InvalidRequestError, match="cannot pickle a Once with a key"):
        pickle.dumps(Once(ECHO, journal=tmp_path / "journal.db", key="secret"))


PROGRAM = """
import sys
import anyio
from fal_async import Once

draw = Once("acme/echo", journal=sys.argv[1])

async def main():
    async with anyio.create_task_group() as group:
        for n in range(40):
            group.start_soon(draw, {"n": n})

anyio.run(main)
"""


@pytest.mark.slow
def test_processes_share_a_journal(fal: Emulator, journal_path: str) -> None:
    environment = {**os.environ, **fal.environ}
    command = [sys.executable, "-c", PROGRAM, journal_path]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(started(command, env=environment, stdout=None)) for _ in range(3)
        ]
        assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert fal.counters(ECHO).executions == 40


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"errors": "ignore"}, "errors must be 'column' or 'raise'"),
        ({"into": 7}, "into must be text"),
        ({"concurrency": 0}, "concurrency must be a whole number"),
        ({"journal": ""}, "journal must be a path"),
        ({"unsure": "maybe"}, "unsure must be"),
    ],
)
def test_wrong_options_are_refused(option: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"journal": ":memory:", **option}
    with pytest.raises(InvalidRequestError, match=message):
        Once(ECHO, **options)
