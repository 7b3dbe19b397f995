"""Bars for calls and files."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from rich.console import Console

import fal_async
from fal_async import AsyncClient, InProgress, hooks
from tests.support.events import EventRecorder

if TYPE_CHECKING:
    from fal_async.emulator import Emulator

ECHO = "acme/echo"


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), force_terminal=True, width=100, color_system=None)


def text(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


async def test_queue_and_run_are_shown(fal: Emulator, console: Console) -> None:
    gate, events = fal.gate(), EventRecorder()

    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    fal.register("acme/slow", slow, concurrency=1)
    bars = fal_async.progress(console=console)
    async with AsyncClient(fal.key, hosts=fal.hosts, hooks=[bars, events]) as client:

        async def subscribe() -> None:
            await client.subscribe("acme/slow", {})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscribe)
            await events.until(
                hooks.StatusChanged, lambda event: isinstance(event.status, InProgress)
            )
            bars._progress.refresh()
            shown = text(console)
            assert "acme/slow" in shown
            assert "running" in shown
            gate.open()
    assert bars._tasks == {}
    assert not bars._progress.live.is_started


async def test_files_are_shown(fal: Emulator, console: Console) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    shown: list[str] = []
    bars = fal_async.progress(console=console)

    def look(event: hooks.Event) -> None:
        shown.extend(task.description for task in bars._progress.tasks)

    async with AsyncClient(fal.key, hosts=fal.hosts, hooks=[bars, look]) as client:
        upload = fal_async.Upload(bytes(3_000_000), "image/png", "a.png")
        result = await client.run(ECHO, {"image": {"url": upload}})
        (file,) = result.files()
        await file.read()
    assert {ECHO, "upload a.png", "download a.png"} <= {*shown}
    assert bars._progress.tasks == []


async def test_block_shows_its_calls(fal: Emulator, client: AsyncClient, console: Console) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    with fal_async.progress(console=console) as bars:
        await client.subscribe(ECHO, {})
    assert ECHO in text(console)
    assert bars._tasks == {}
    before = text(console)
    await client.subscribe(ECHO, {})
    assert text(console) == before


async def test_nothing_is_shown_without_terminal(fal: Emulator, client: AsyncClient) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    console = Console(file=StringIO())
    with fal_async.progress(console=console):
        await client.subscribe(ECHO, {})
    assert text(console) == ""


def test_missing_rich_is_named() -> None:
    code = """
import sys
sys.modules["rich"] = sys.modules["rich.console"] = None
import fal_async
try:
    fal_async.progress()
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == 'progress requires rich: pip install "fal-async[cli]"\n'
