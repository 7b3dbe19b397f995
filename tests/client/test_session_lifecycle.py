"""Lifecycle of sessions: independent of tasks, bound to their client and event loop."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import warnings
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from fal_async import AsyncClient, Hosts
from fal_async._net import background
from fal_async.errors import ClientClosedError, InvalidRequestError, RealtimeDisconnectedError
from tests.support.cancel_points import cancel_everywhere
from tests.support.raw_server import PATIENCE, RawConnection, RawServer
from tests.support.websocket_server import ScriptedWebSocket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Open: TypeAlias = Callable[[AsyncClient], AbstractAsyncContextManager[Any]]

KINDS = {
    "realtime": lambda client: client.realtime("owner/app", use_jwt=False),
    "reconnecting": lambda client: client.realtime("owner/app", use_jwt=False, reconnect=True),
    "ws_connect": lambda client: client.ws_connect("owner/app", use_jwt=False),
    "over_websocket": lambda client: client.http_over_websocket("owner/app"),
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def open_session(request: pytest.FixtureRequest) -> Open:
    """Each method that opens a WebSocket."""
    chosen: Open = request.param
    return chosen


class Sessions(RawServer):
    """A platform that confirms every close, and records the close codes."""

    def __init__(self) -> None:
        super().__init__(self._confirm_close)
        self.codes: SimpleQueue[int] = SimpleQueue()

    def _confirm_close(self, connection: RawConnection) -> None:
        if connection._fill():  # otherwise the client closed before the handshake
            self.codes.put(ScriptedWebSocket(connection).confirm_close())

    def client(self) -> AsyncClient:
        return AsyncClient("id:secret", hosts=Hosts.at(self.url.rstrip("/")))

    async def next_code(self) -> int:
        return await anyio.to_thread.run_sync(partial(self.codes.get, timeout=PATIENCE))


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    with Sessions() as peer:
        yield peer
    assert background._asyncio_tasks == {}


async def in_another_task(work: Callable[[], Awaitable[object]]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)  # type: ignore[arg-type]  # all are coroutine functions


async def test_block_may_span_two_tasks(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:
        block = open_session(client)
        await in_another_task(block.__aenter__)
        await in_another_task(partial(block.__aexit__, None, None, None))
        assert await sessions.next_code() == 1000


async def test_another_task_may_close_exit_stack(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:
        stack = AsyncExitStack()
        for _ in range(3):
            await in_another_task(partial(stack.enter_async_context, open_session(client)))
        await in_another_task(stack.aclose)
        assert [await sessions.next_code() for _ in range(3)] == [1000] * 3


async def test_closing_does_not_cancel_opening_task(sessions: Sessions, open_session: Open) -> None:
    entered, closed, continued = anyio.Event(), anyio.Event(), anyio.Event()
    async with sessions.client() as client:
        block = open_session(client)

        async def owner() -> None:
            await block.__aenter__()
            entered.set()
            await closed.wait()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            continued.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(owner)
            await entered.wait()
            await block.__aexit__(None, None, None)
            closed.set()
        assert continued.is_set()
        assert await sessions.next_code() == 1000


async def test_session_outlives_cancel_scope(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:
        block = open_session(client)
        with anyio.CancelScope() as scope:
            session = await block.__aenter__()
            scope.cancel()
            await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert "None" in repr(session) or not hasattr(session, "close_code")
        await block.__aexit__(None, None, None)
        assert await sessions.next_code() == 1000


async def test_closed_generator_closes_session(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:

        async def frames() -> AsyncGenerator[int, None]:
            async with open_session(client):
                for number in range(100):
                    yield number

        async with aclosing(frames()) as numbers:
            async for number in numbers:
                if number == 2:
                    break
        await anyio.lowlevel.checkpoint()
        assert await sessions.next_code() == 1000


def test_unfinished_generator_closes_session(sessions: Sessions, open_session: Open) -> None:
    errors: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        async with sessions.client() as client:

            async def frames() -> AsyncGenerator[int, None]:
                async with open_session(client):
                    for number in range(100):
                        yield number

            async for number in frames():
                if number == 2:
                    break
            gc.collect()
            assert await sessions.next_code() == 1000

    asyncio.run(main())
    assert errors == []


async def test_cancellation_anywhere_closes_session(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:

        async def use() -> None:
            async with open_session(client):
                await anyio.lowlevel.checkpoint()

        async for _ in cancel_everywhere(use):
            pass
        await anyio.to_thread.run_sync(sessions.wait_idle)


def test_repeated_native_cancel_closes_session(sessions: Sessions, open_session: Open) -> None:
    async def main() -> None:
        async with sessions.client() as client:
            entered = asyncio.Event()

            async def use() -> None:
                async with open_session(client):
                    entered.set()
                    await asyncio.sleep(60)

            task = asyncio.create_task(use())
            await entered.wait()
            for _ in range(5):
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([task])
            assert task.cancelled()

    asyncio.run(main())
    sessions.wait_idle()


async def test_block_can_be_entered_only_once(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:
        block = open_session(client)
        await block.__aexit__(None, None, None)
        async with block:
            with pytest.raises(InvalidRequestError, match="entered once"):
                await block.__aenter__()
        await block.__aexit__(None, None, None)
        assert await sessions.next_code() == 1000


async def test_unclosed_session_warns_and_closes(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:
        session = await open_session(client).__aenter__()
        held = [session]
        del session
        with pytest.warns(ResourceWarning, match="async with"):
            held.clear()
        assert await sessions.next_code() == 1001


async def test_any_thread_may_free_session(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:
        held = [await open_session(client).__aenter__()]

        def free() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                held.clear()
                gc.collect()

        thread = threading.Thread(target=free)
        thread.start()
        assert await sessions.next_code() == 1001
        await anyio.to_thread.run_sync(thread.join)


async def test_referenced_session_stays_open(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:
        session = await open_session(client).__aenter__()
        gc.collect()
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        assert sessions.codes.empty()
        await session.close()
        assert await sessions.next_code() == 1000


async def test_closing_client_closes_all_sessions(sessions: Sessions, open_session: Open) -> None:
    client = sessions.client()
    blocks = [open_session(client) for _ in range(3)]
    held: list[Any] = []
    for block in blocks:
        async with anyio.create_task_group() as tasks:

            async def enter(block: Any = block) -> None:
                held.append(await block.__aenter__())

            tasks.start_soon(enter)
    await client.aclose()
    assert [await sessions.next_code() for _ in range(3)] == [1000] * 3
    for block in blocks:
        await block.__aexit__(None, None, None)


def run_on_uvloop(main: Callable[[], Any]) -> None:
    import uvloop

    uvloop.run(main())


RUNS: dict[str, Callable[[Callable[[], Any]], None]] = {
    "asyncio": lambda main: asyncio.run(main(), debug=True),
    "trio": trio.run,
}
if sys.platform != "win32":
    RUNS["uvloop"] = run_on_uvloop


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_session_ends_with_its_event_loop(
    sessions: Sessions, open_session: Open, run: Callable[[Callable[[], Any]], None]
) -> None:
    client = sessions.client()  # stays open and referenced until its event loop ends
    held: list[Any] = []

    async def main() -> None:
        held.append(await open_session(client).__aenter__())

    run(main)
    assert sessions.codes.get(timeout=PATIENCE) == 1001

    async def later() -> None:
        session = held[0]
        with pytest.raises(RealtimeDisconnectedError, match="event loop"):
            await (session.request({}) if hasattr(session, "request") else session.recv())

    run(later)


def test_session_of_closed_loop_is_closed(sessions: Sessions, open_session: Open) -> None:
    client = sessions.client()
    loop = asyncio.new_event_loop()
    session = loop.run_until_complete(open_session(client).__aenter__())
    loop.close()

    async def main() -> None:
        async with client, open_session(client):
            pass

    asyncio.run(main())
    assert sessions.codes.get(timeout=PATIENCE) == 1000
    sessions.wait_idle()

    async def later() -> None:
        with pytest.raises((RealtimeDisconnectedError, ClientClosedError)):
            await (session.request({}) if hasattr(session, "request") else session.send({}))

    asyncio.run(later())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork there")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_does_not_keep_session_open(sessions: Sessions, open_session: Open) -> None:
    go_on = multiprocessing.get_context("fork").Event()

    async def main() -> None:
        async with sessions.client() as client:
            session = await open_session(client).__aenter__()
            child = os.fork()
            if not child:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    del session
                    gc.collect()
                os._exit(0 if not caught and go_on.wait(PATIENCE) else 1)
            children.append(child)
            await session.close()

    children: list[int] = []
    asyncio.run(main())
    sessions.wait_idle()  # the child process has closed its copy of the socket
    go_on.set()
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0


FIXTURE = """
import unittest
import pytest, pytest_asyncio
from fal_async import AsyncClient, Hosts

HOSTS = Hosts.at("{url}")

@pytest_asyncio.fixture
async def session():
    async with AsyncClient("id:secret", hosts=HOSTS) as client:
        async with client.{kind} as session:
            yield session

@pytest.mark.asyncio
async def test_fixture(session):
    assert session is not None

class Test(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        client = await self.enterAsyncContext(AsyncClient("id:secret", hosts=HOSTS))
        self.session = await self.enterAsyncContext(client.{kind})

    async def test_it(self):
        assert self.session is not None
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ['realtime("a/b", use_jwt=False)', 'ws_connect("a/b", use_jwt=False)']
)
def test_fixtures_may_open_sessions(sessions: Sessions, kind: str, tmp_path: Path) -> None:
    test = FIXTURE.format(url=sessions.url.rstrip("/"), kind=kind)
    (tmp_path / "test_it.py").write_text(test)
    scope = "asyncio_default_fixture_loop_scope=function"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-o", scope, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [sessions.codes.get(timeout=PATIENCE) for _ in range(2)] == [1000] * 2


@asynccontextmanager
async def held_across(session: AbstractAsyncContextManager[Any]) -> AsyncGenerator[Any]:
    """Wrap a session by `contextlib`, as applications do."""
    async with session as opened:
        yield opened


async def test_wrapped_block_may_span_two_tasks(sessions: Sessions, open_session: Open) -> None:
    async with sessions.client() as client:
        block = held_across(open_session(client))
        await in_another_task(block.__aenter__)
        await in_another_task(partial(block.__aexit__, None, None, None))
        assert await sessions.next_code() == 1000


IMPORTS = """
import sys, threading
import anyio, fal_async

class Noting:
    threads = []
    def find_spec(self, name, path=None, target=None):
        if name in ("httpx", "websockets.client"):
            self.threads.append(threading.current_thread())

async def main():
    sys.meta_path.insert(0, Noting())
    client = fal_async.AsyncClient("id:secret", hosts=fal_async.Hosts.at(sys.argv[1]))
    async with client, client.ws_connect("a/b", use_jwt=False):
        pass
    assert len(Noting.threads) == 2
    assert threading.main_thread() not in Noting.threads

anyio.run(main)
"""


@pytest.mark.slow
def test_first_session_imports_in_worker_thread(sessions: Sessions) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, sessions.url.rstrip("/")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
