"""Worker threads: abandonment, separation by kind and limits."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from fal_async import AsyncClient, FalClientError
from fal_async._net import threads
from fal_async._net.connect import connect
from fal_async._net.threads import SLOTS, Work, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fal_async.emulator import Emulator


@contextmanager
def blocked() -> Iterator[Blocker]:
    """Something that threads block in until the end of the test."""
    blocker = Blocker()
    try:
        yield blocker
    finally:
        blocker.end.set()


class Blocker:
    def __init__(self) -> None:
        self.end = threading.Event()
        self.entered = threading.Semaphore(0)

    def block(self, *_args: object, **_options: object) -> list[object]:
        self.entered.release()
        self.end.wait(30)
        return []

    async def abandon(self, times: int, work: Work) -> None:
        """Start this number of blocked calls, and cancel their callers."""
        async with anyio.create_task_group() as group:
            for _ in range(times):
                group.start_soon(run_in_thread, self.block, work)
            for _ in range(times):
                await run_in_thread(self.entered.acquire, Work.CLEANUP)
            group.cancel_scope.cancel()


@pytest.mark.parametrize("work", [Work.FILES, Work.SOURCES, Work.LOOKUPS])
async def test_abandoned_threads_delay_nobody(work: Work) -> None:
    with blocked() as blocker:
        for _ in range(2):
            await blocker.abandon(SLOTS[work], work)
        assert await run_in_thread(lambda: 1, work) == 1


@pytest.mark.parametrize("work", [Work.FILES, Work.SOURCES, Work.LOOKUPS])
async def test_kinds_of_work_do_not_delay_each_other(work: Work) -> None:
    with blocked() as blocker:
        async with anyio.create_task_group() as group:
            for _ in range(SLOTS[work] + 1):
                group.start_soon(run_in_thread, blocker.block, work)
            for _ in range(SLOTS[work]):
                await run_in_thread(blocker.entered.acquire, Work.CLEANUP)
            assert not blocker.entered.acquire(blocking=False)  # the last one has no slot
            for other in set(Work) - {work}:
                assert await run_in_thread(lambda: 1, other) == 1
            blocker.end.set()


async def test_number_of_abandoned_threads_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "MAX_ABANDONED", 3)
    with blocked() as blocker:
        await blocker.abandon(3, Work.SOURCES)
        with pytest.raises(
            FalClientError, match="3 threads of cancelled callers are still blocked in iterators"
        ):
            await run_in_thread(lambda: 1, Work.SOURCES)
        assert await run_in_thread(lambda: 1, Work.FILES) == 1
        await blocker.abandon(4, Work.CLEANUP)
        assert await run_in_thread(lambda: 1, Work.CLEANUP) == 1

        blocker.end.set()
        while True:
            try:
                assert await run_in_thread(lambda: 1, Work.SOURCES) == 1
            except FalClientError:
                await anyio.lowlevel.checkpoint()
            else:
                break


async def test_cancelled_iterator_uploads_delay_nothing(
    fal: Emulator, client: AsyncClient, tmp_path: Path
) -> None:
    with blocked() as blocker:

        def bits() -> Iterator[bytes]:
            yield b"x" * (1 << 20)
            blocker.block()

        for _ in range(9):
            async with anyio.create_task_group() as group:
                group.start_soon(client.upload, bits(), "image/png")
                await run_in_thread(blocker.entered.acquire, Work.CLEANUP)
                group.cancel_scope.cancel()
        path = await client.download("data:,hello", tmp_path / "hello")
        assert path.read_bytes() == b"hello"
        assert await client.upload(iter([b"bits"]), "image/png")


async def test_cancelled_dns_lookups_delay_nothing(
    monkeypatch: pytest.MonkeyPatch, tcp_port: int
) -> None:
    with blocked() as blocker:
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", blocker.block)
            for _ in range(SLOTS[Work.LOOKUPS] + 1):
                async with anyio.create_task_group() as group:
                    group.start_soon(connect, "slow.example", 80)
                    await run_in_thread(blocker.entered.acquire, Work.CLEANUP)
                    group.cancel_scope.cancel()
        async with await connect("localhost", tcp_port):
            pass


@pytest.fixture
def tcp_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]
