"""One transport in several event loops, threads and processes."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from fal_async._http.httpx_transport import PooledTransport
from fal_async._net.event_loops import PerLoop
from fal_async._net.running_loop import cancellation_check
from tests.support.pool_state import idle
from tests.support.raw_server import OK, RawConnection, RawServer, respond_with

if TYPE_CHECKING:
    import trustme

ROOT = Path(__file__).parents[2]


PRELUDE = """
import asyncio, gc, logging, os, ssl, sys, threading
import anyio, httpx, trio, uvloop
from fal_async._http.httpx_transport import PooledTransport

logging.getLogger("asyncio").setLevel("ERROR")  # it finds this machine slow

def on_asyncio(main):
    asyncio.run(main())

def on_uvloop(main):
    uvloop.run(main())

def on_runner(main):
    with asyncio.Runner() as runner:
        runner.run(main())
        runner.run(main())

EVERYWHERE = [on_asyncio, on_uvloop, on_runner, trio.run]

async def ask(transport, read=True):
    response = await transport.handle_async_request(httpx.Request("GET", sys.argv[1]))
    if read:
        assert await response.aread() == b"ok"
    return response
"""


def run_script(script: str, url: str) -> None:
    """Run a script in a new process, which must not write to stderr."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PRELUDE + textwrap.dedent(script), url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.slow
def test_consecutive_loops_close_everything() -> None:
    script = """
    transport = PooledTransport()

    async def main():
        await ask(transport)
        async with httpx.AsyncClient(transport=PooledTransport()) as client:
            await client.get(sys.argv[1])
        await ask(transport)

    for first in EVERYWHERE:
        for second in EVERYWHERE:
            first(main)
            second(main)
    """
    with RawServer(respond_with(OK)) as peer:
        run_script(script, peer.url)
        assert len(peer.connections) == 32 + 40  # a runner keeps its loop


@pytest.mark.slow
def test_unclosed_response_ends_with_its_loop() -> None:
    script = """
    transport = PooledTransport()
    responses = []

    async def main():
        responses.append(await ask(transport, read=False))

    for run in EVERYWHERE:
        run(main)
    """

    def half_a_response(connection: RawConnection) -> None:
        connection.respond(OK[:-1])
        connection.wait_closed()

    with RawServer(half_a_response) as peer:
        run_script(script, peer.url)


@pytest.mark.slow
def test_concurrent_loops_are_independent() -> None:
    script = """
    transport = PooledTransport(max_connections=2)

    async def main():
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask, transport)

    threads = [threading.Thread(target=run, args=(main,)) for run in EVERYWHERE * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    """
    with RawServer(respond_with(OK)) as peer:
        run_script(script, peer.url)
        assert 10 <= len(peer.connections) <= 20


@pytest.mark.slow
def test_ended_loops_are_forgotten() -> None:
    script = """
    transport = PooledTransport()

    async def main():
        transport._pool._connections.get()

    for _ in range(50):
        asyncio.run(main())
        trio.run(main)
    assert len(transport._pool._connections._slots) == 0

    # Not even those that are closed without a shutdown.
    for number in range(20):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    assert len(transport._pool._connections._slots) == 1
    """
    run_script(script, "")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork here")
@pytest.mark.parametrize("secure", [False, True])
def test_forked_child_keeps_parent_connections(secure: bool, authority: trustme.CA) -> None:
    """The server sees a new connection of the child, and the parent's stays open."""
    script = """
    import warnings
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # of os.fork, Python 3.12
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    transport = PooledTransport(ssl_context=context)
    loop = asyncio.new_event_loop()

    async def main():
        await ask(transport)

    async def fork():
        await main()
        if os.fork() == 0:
            assert not transport._pool._connections._slots
            os._exit(0)
        assert os.wait()[1] == 0
        await main()

    loop.run_until_complete(main())
    if os.fork() == 0:
        assert not transport._pool._connections._slots
        asyncio.run(main())
        trio.run(main)
        gc.collect()
        os._exit(0)
    assert os.wait()[1] == 0
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    asyncio.run(fork())
    trio.run(fork)
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    with RawServer(respond_with(OK), tls=server if secure else None) as peer:
        run_script(script, peer.url)
        assert [len(connection.requests) for connection in peer.connections] == [2, 1, 1, 2, 2]


async def test_garbage_collected_transport_is_closed(
    anyio_backend: tuple[str, object],
) -> None:
    if anyio_backend[0] == "trio":
        pytest.skip("trio warns of generators that are forgotten, and rightly so")
    with RawServer(respond_with(OK)) as peer:
        transport = PooledTransport()
        response = await transport.handle_async_request(httpx.Request("GET", peer.url))
        del transport, response
        gc.collect()
        await anyio.wait_all_tasks_blocked()
        peer.wait_ended()


async def test_close_is_final_and_idempotent() -> None:
    with RawServer(respond_with(OK)) as peer:
        transport = PooledTransport()
        await transport.handle_async_request(httpx.Request("GET", peer.url))
        await transport.aclose()
        await transport.aclose()
        peer.wait_ended()
        with pytest.raises(RuntimeError, match="closed"):
            await transport.handle_async_request(httpx.Request("GET", peer.url))


async def test_cancelled_close_still_closes() -> None:
    with RawServer(respond_with(OK)) as peer:
        transport = PooledTransport()
        await transport.handle_async_request(httpx.Request("GET", peer.url))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose()
        peer.wait_ended()


async def test_busy_connection_is_closed_on_release() -> None:
    go_on = threading.Event()

    def script(connection: RawConnection) -> None:
        connection.respond(OK[:-1])
        assert go_on.wait(10)
        connection.send(OK[-1:])
        connection.wait_closed()

    with RawServer(script) as peer:
        transport = PooledTransport()
        response = await transport.handle_async_request(httpx.Request("GET", peer.url))
        await transport.aclose()
        go_on.set()
        assert await response.aread() == b"ok"
        peer.wait_ended()


async def test_close_wakes_waiters_for_a_connection() -> None:
    with RawServer(RawConnection.wait_closed) as peer:
        transport = PooledTransport(max_connections=1)
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                await transport.handle_async_request(httpx.Request("GET", peer.url))

            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()

            async def wait() -> None:
                with pytest.raises(RuntimeError, match="closed"):
                    await ask()

            async with anyio.create_task_group() as waiters:
                for _ in range(3):
                    waiters.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                await transport.aclose()
            group.cancel_scope.cancel()


class Thing:
    """A value that supports weak references."""

    def __init__(self) -> None:
        self.closed = 0


def _close(thing: Thing) -> None:
    thing.closed += 1


def test_loop_value_is_created_and_closed_once() -> None:
    things: list[Thing] = []
    per_loop = PerLoop(Thing, _close)

    async def main() -> None:
        things.append(per_loop.get())
        assert per_loop.get() is things[-1]
        assert things[-1].closed == 0

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(main, backend=backend)
    assert len(set(map(id, things))) == 3
    assert [thing.closed for thing in things] == [1, 1, 1]


def test_popped_value_belongs_to_the_caller() -> None:
    per_loop = PerLoop(Thing, _close)
    things: list[Thing | None] = []

    async def main() -> None:
        assert per_loop.pop() is None
        first = per_loop.get()
        things.append(per_loop.pop())
        assert things == [first]
        assert per_loop.get() is not first

    anyio.run(main)
    assert things[0] is not None
    assert things[0].closed == 0


def test_values_may_require_closing_in_their_loop() -> None:
    closed: list[Thing] = []

    async def close(thing: Thing) -> None:
        closed.append(thing)
        with anyio.CancelScope(shield=True):
            await anyio.lowlevel.checkpoint()
        thing.closed += 1

    per_loop = PerLoop(Thing, close)

    async def main() -> None:
        per_loop.get()

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)
    assert [thing.closed for thing in closed] == [1, 1]


def test_values_without_close_end_with_their_loop() -> None:
    per_loop = PerLoop(Thing)
    refs: list[weakref.ref[Thing]] = []

    async def main() -> None:
        refs.append(weakref.ref(per_loop.get()))

    asyncio.run(main())
    gc.collect()
    assert refs[0]() is None


async def test_cancellation_check_obeys_nested_and_shielded_scopes() -> None:
    check = cancellation_check()
    await check()
    reached: list[str] = []
    with anyio.CancelScope() as outer:
        await check()
        outer.cancel()
        with anyio.CancelScope(shield=True):
            await check()
            reached.append("shielded")
        with anyio.CancelScope(shield=True) as inner:
            inner.cancel()
            await check()
            reached.append("cancelled within the shield")
        with anyio.CancelScope():
            await check()
            reached.append("within the cancelled scope")
    assert outer.cancelled_caught
    assert inner.cancelled_caught
    assert reached == ["shielded"]
    await check()


async def test_cancellation_check_lets_no_other_task_run() -> None:
    check = cancellation_check()
    ran: list[bool] = []

    async def other() -> None:
        ran.append(True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        for _ in range(100):
            await check()
        assert not ran


def test_cancellation_check_leaves_native_cancellation_to_the_next_wait() -> None:
    reached: list[str] = []

    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await cancellation_check()()
        reached.append("check")
        await asyncio.sleep(0)
        reached.append("wait")

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(cancel_itself())

    asyncio.run(main())
    assert reached == ["check"]


async def test_each_loop_has_its_own_pool(transport: PooledTransport) -> None:
    with RawServer(respond_with(OK)) as peer:

        async def ask() -> int:
            await transport.handle_async_request(httpx.Request("GET", peer.url))
            return idle(transport)

        assert await ask() == 1
        assert await anyio.to_thread.run_sync(anyio.run, ask) == 1
        assert await ask() == 1
        assert len(peer.connections) == 2
