"""Hooks: sync and async, failing, several, of a client and of a block."""

from __future__ import annotations

import logging
import pickle
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import fal_async
import fal_async.sync
from fal_async import AsyncClient, InvalidInputError, InvalidRequestError, hooks
from fal_async.emulator import AppError
from tests.support.events import EventRecorder
from tests.support.http import echo

if TYPE_CHECKING:
    from fal_async.emulator import Emulator
    from fal_async.hooks import Event

ECHO = "acme/echo"
RUN = ["CallStarted", "AttemptStarted", "ResponseStarted", "CallEnded"]


@pytest.fixture(autouse=True)
def apps(fal: Emulator) -> None:
    fal.register(ECHO, echo)


def make_client(fal: Emulator, **options: Any) -> AsyncClient:
    return AsyncClient(fal.key, hosts=fal.hosts, **options)


async def test_failing_hook_changes_nothing(
    fal: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    events = EventRecorder()

    def fail(event: Event) -> None:
        raise ZeroDivisionError

    caplog.set_level(logging.DEBUG, "fal_async")
    async with make_client(fal, hooks=[fail, events]) as client:
        assert await client.run(ECHO, {"seed": 7}) == {"seed": 7}
    assert events.names == RUN
    logged = [record for record in caplog.records if "hook has failed" in record.message]
    assert [record.levelname for record in logged] == ["ERROR", "DEBUG", "DEBUG", "DEBUG"]
    assert all(record.exc_info for record in logged)


async def test_each_kind_of_failure_is_logged_as_an_error(
    fal: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise (ZeroDivisionError if isinstance(event, hooks.CallStarted) else KeyError)

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]  # as that of a mutable dataclass

        def __call__(self, event: Event) -> None:
            raise ZeroDivisionError

    async with make_client(fal, hooks=[fail, Unhashable()]) as client:
        assert await client.run(ECHO, {"seed": 7}) == {"seed": 7}
    assert caplog.text.count("ERROR") == 2 + len(RUN)


async def test_async_hooks_run_in_order(fal: Emulator) -> None:
    names: list[str] = []

    async def record(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        names.append(type(event).__name__)

    async with make_client(fal, hooks=record) as client:
        await client.run(ECHO, {})
    assert names == RUN


async def test_slow_async_hook_does_not_delay_calls(fal: Emulator) -> None:
    released = anyio.Event()
    names: list[str] = []

    async def wait(event: Event) -> None:
        await released.wait()
        names.append(type(event).__name__)

    async with make_client(fal, hooks=wait) as client:
        await client.run(ECHO, {})
        assert names == []
        released.set()
    assert names == RUN


async def test_log_of_a_failing_hook_quotes_nothing(
    fal: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    def reject(arguments: dict[str, str]) -> None:
        raise AppError(422, [{"loc": ["body"], "msg": arguments["prompt"], "type": "value_error"}])

    def fail(event: Event) -> None:
        try:
            int("own")
        except ValueError:
            raise ZeroDivisionError  # noqa: B904 -- the chain is what is tested

    fal.register("acme/strict", reject)
    async with make_client(fal, hooks=fail) as client:
        with pytest.raises(InvalidInputError, match="a secret fox"):
            await client.run("acme/strict", {"prompt": "a secret fox"})
    assert "int() with base 10: 'own'" in caplog.text
    assert "a secret fox" not in caplog.text


async def test_failing_async_hook_is_logged(
    fal: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async with make_client(fal, hooks=fail) as client:
        assert await client.run(ECHO, {"seed": 7}) == {"seed": 7}
    assert caplog.text.count("hook has failed") == 1


async def test_hooks_may_call_the_client(fal: Emulator) -> None:
    events = EventRecorder()
    async with make_client(fal) as client:

        async def call(event: Event) -> None:
            if isinstance(event, hooks.CallEnded) and event.call.name == "run":
                await client.submit(ECHO, {})

        async with client.with_options(hooks=[call, events]) as observed:
            await observed.run(ECHO, {})
    await fal.wait_for_counters(ECHO, executions=2)
    assert events.names == RUN


async def test_block_adds_hooks(fal: Emulator, client: AsyncClient) -> None:
    outer, inner = EventRecorder(), EventRecorder()
    with hooks.use(outer):
        with hooks.use(inner):
            await client.run(ECHO, {})
        await client.run(ECHO, {})
    await client.run(ECHO, {})
    assert inner.names == RUN
    assert outer.names == RUN * 2


def test_blocking_calls_report_events(fal: Emulator) -> None:
    events = EventRecorder()
    with fal_async.sync.SyncClient(fal.key, hosts=fal.hosts, hooks=events) as client:
        client.run(ECHO, {})
        assert client.statistics().held.used == 0
        scoped = EventRecorder()
        with hooks.use(scoped):
            client.run(ECHO, {})
    assert events.names == RUN * 2
    assert scoped.names == RUN


async def test_options_replace_hooks(fal: Emulator) -> None:
    first, second = EventRecorder(), EventRecorder()
    async with make_client(fal, hooks=first) as client:
        await client.with_options(hooks=second).run(ECHO, {})
        await client.with_options(hooks=None).run(ECHO, {})
        assert (first.names, second.names) == ([], RUN)
        await client.with_options(default_timeout=5).run(ECHO, {})
    assert first.names == RUN


def test_invalid_hooks_are_rejected() -> None:
    with pytest.raises(InvalidRequestError, match="hooks must be a function or a list"):
        AsyncClient("a:b", hooks=7)  # type: ignore[arg-type]  # as the test is about
    with pytest.raises(InvalidRequestError, match="hooks must be functions, got 7"):
        AsyncClient("a:b", hooks=[7])  # type: ignore[list-item]  # as above
    with pytest.raises(InvalidRequestError, match="hooks must be functions"), hooks.use(7):  # type: ignore[arg-type]  # as above
        pass


def test_pickled_client_has_no_hooks() -> None:
    client = AsyncClient("a:b", hooks=print, user_agent="my-app/1.0")
    again = pickle.loads(pickle.dumps(client))
    assert again._dispatcher.hooks == ()
    assert again._dispatcher.user_agent == client._dispatcher.user_agent


async def test_too_slow_async_hooks_lose_events(
    fal: Emulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fal_async._dispatch import async_hooks

    monkeypatch.setattr(async_hooks, "MAX_PENDING", 2)
    released = anyio.Event()
    received: list[Event] = []

    async def wait(event: Event) -> None:
        await released.wait()
        received.append(event)

    async with make_client(fal, hooks=wait) as client:
        await client.run(ECHO, {})
        released.set()
    assert len(received) < len(RUN)
    assert caplog.text.count("Async hooks are too slow") == 1


async def test_calls_without_hooks_load_no_events(fal: Emulator, client: AsyncClient) -> None:
    assert not logging.getLogger("fal_async").isEnabledFor(logging.DEBUG)
    from fal_async._dispatch.call_observer import NO_OBSERVER

    assert client._dispatcher.begin_call("run", ECHO).observer is NO_OBSERVER
