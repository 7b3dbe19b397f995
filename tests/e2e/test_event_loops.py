"""Event loops: module-level functions work in each and close their connections with it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from fal_async import AsyncClient, ClientClosedError
from tests.support.callbacks import stderr_lines

if TYPE_CHECKING:
    from fal_async.emulator import Emulator

CALLS = """
import asyncio, gc, sys
import fal_async

async def main():
    assert await fal_async.run("acme/echo", {"n": 1}) == {"n": 1}
    handle = await fal_async.submit("acme/echo", {"n": 2})
    assert await handle.get() == {"n": 2}
    assert await fal_async.subscribe("acme/echo", {"n": 3}) == {"n": 3}
    assert await fal_async.attach(handle.to_dict()).get() == {"n": 2}
"""


def run_script(fal: Emulator, script: str) -> None:
    fal.register("acme/echo", lambda arguments: arguments)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", CALLS + textwrap.dedent(script)],
        env=os.environ | fal.environ,
        capture_output=True,
        timeout=50,
        check=False,
    )
    assert stderr_lines(done.stderr) == []
    assert done.returncode == 0
    fal.wait_for(lambda: fal.connections == 0)


def test_four_asyncio_runs_in_a_row(fal: Emulator) -> None:
    run_script(fal, "for _ in range(4): asyncio.run(main())")


def test_trio_after_asyncio_after_trio(fal: Emulator) -> None:
    run_script(fal, "import trio; trio.run(main); asyncio.run(main()); trio.run(main)")


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not exist there")
def test_uvloop_after_asyncio(fal: Emulator) -> None:
    run_script(fal, "import uvloop; asyncio.run(main()); uvloop.run(main()); uvloop.run(main())")


@pytest.mark.slow
def test_one_client_works_in_consecutive_loops(fal: Emulator) -> None:
    run_script(
        fal,
        """
        client = fal_async.AsyncClient()
        async def use():
            assert await client.subscribe("acme/echo", {"n": 3}) == {"n": 3}
        for _ in range(3): asyncio.run(use())
        import trio
        trio.run(use)
        """,
    )


def test_loops_in_two_threads_work_concurrently(fal: Emulator) -> None:
    run_script(
        fal,
        """
        import threading
        threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
    )


def test_forked_child_opens_its_own_connections(fal: Emulator) -> None:
    run_script(
        fal,
        """
        import os
        client = fal_async.AsyncClient()
        async def use():
            assert await client.run("acme/echo", {"n": 3}) == {"n": 3}
        loop = asyncio.new_event_loop()
        loop.run_until_complete(use())
        if not (child := os.fork()):
            asyncio.run(use())
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        loop.run_until_complete(use())
        loop.run_until_complete(client.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        """,
    )


def test_failed_run_closes_its_connections(fal: Emulator) -> None:
    run_script(
        fal,
        """
        async def fail():
            await main()
            raise LookupError
        for _ in range(2):
            try: asyncio.run(fail())
            except LookupError: pass
        """,
    )


async def test_closed_client_raises_an_error(fal: Emulator, client: AsyncClient) -> None:
    fal.register("acme/echo", lambda arguments: arguments)
    handle = await client.submit("acme/echo", {})
    await client.aclose()
    await client.aclose()

    for call in (handle.get, handle.status, handle.cancel):
        with pytest.raises(ClientClosedError):
            await call()
    with pytest.raises(ClientClosedError):
        await client.run("acme/echo", {})


async def test_client_with_options_shares_connections(fal: Emulator, client: AsyncClient) -> None:
    @fal.endpoint("acme/who")
    def who(arguments: dict[str, Any]) -> dict[str, Any]:
        return arguments

    fal.accept_key("other:key")
    async with client.with_options(key="other:key") as other:
        await other.run("acme/who", {})
    await client.run("acme/who", {})

    keys = [request.headers["authorization"] for request in fal.requests]
    assert keys == ["Key other:key", f"Key {fal.key}"]
    assert fal.connections == 1


def test_call_imports_neither_httpx_nor_pydantic(fal: Emulator) -> None:
    run_script(
        fal,
        """
        asyncio.run(main())
        assert not {"httpx", "pydantic", "websockets"} & sys.modules.keys()
        """,
    )


@pytest.mark.slow
def test_prepared_client_imports_no_more_modules(fal: Emulator) -> None:
    run_script(
        fal,
        """
        async def prepared():
            async with fal_async.AsyncClient() as client:
                await client.prepare()
                before = set(sys.modules)
                await client.subscribe("acme/echo", {"n": 1})
                await client.upload(b"cat", "image/png")
                async with client.http_over_websocket("acme/echo") as requests:
                    await requests.request({"n": 1})
                assert set(sys.modules) - before == set()

        asyncio.run(prepared())
        """,
    )
