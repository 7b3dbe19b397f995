"""Log lines: one for each call, request and connection, without secrets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from fal_async import AsyncClient, InvalidRequestError, Limits, NotFoundError
from fal_async.emulator import Emulator, Fault
from tests.support.callbacks import CallbackRecorder
from tests.support.subprocesses import run_program

if TYPE_CHECKING:
    from collections.abc import Iterator

ECHO = "acme/echo"
SECRET = "a confidential prompt"


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "fal_async"):
        yield caplog


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name.startswith("fal_")}


async def test_debug_log_has_one_line_per_step(
    fal: Emulator, client: AsyncClient, debug: pytest.LogCaptureFixture
) -> None:
    fal.register(ECHO, lambda arguments: arguments)
    result = await client.run(ECHO, {"prompt": SECRET}, headers={"x-mine": "mine"})
    fal.fail(ECHO, Fault(route="status", status=503))
    with pytest.raises(NotFoundError):
        await client.status(ECHO, "5b5a1a6e-8a47-4c8b-9b5e-2f2d4b7c9b1e")
    lines = [record for record in debug.records if record.name == "fal_async"]
    messages = [record.getMessage() for record in lines]
    assert [message.split()[0] for message in messages] == [
        "Connected",
        "run:",
        "run",
        "status:",
        "Retrying",
        "status:",
        "status",
    ]
    ended = fields(lines[2])
    assert ended["fal_call"] == "run"
    assert ended["fal_application"] == ECHO
    assert ended["fal_outcome"] == "succeeded"
    assert ended["fal_request_id"] == result.request_id
    assert ended["fal_bytes_sent"] > 0
    failed = fields(lines[-1])
    assert (failed["fal_outcome"], failed["fal_error"]) == ("failed", "NotFoundError")
    assert (failed["fal_attempts"], failed["fal_retries"]) == (2, 1)
    assert fields(lines[3])["fal_status_code"] == 503
    assert fields(lines[0]).keys() == {"fal_host", "fal_port", "fal_seconds"}
    everything = "".join(f"{record.getMessage()} {vars(record)}" for record in lines)
    assert fal.key not in everything
    assert SECRET not in everything


async def test_long_waits_are_logged(
    fal: Emulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fal_async._dispatch.limits.LONG_WAIT", 0.01)
    gate = fal.gate()

    async def slow(arguments: dict[str, Any]) -> dict[str, Any]:
        await gate.wait()
        return arguments

    fal.register(ECHO, slow)
    messages = CallbackRecorder[str]()
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: messages(record.getMessage()))
    monkeypatch.setattr(logging.getLogger("fal_async"), "handlers", [handler])
    caplog.set_level(logging.INFO, "fal_async")
    limits = Limits(held=1)
    async with AsyncClient(fal.key, hosts=fal.hosts, limits=limits) as client:

        async def run() -> None:
            await client.run(ECHO, {})

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(run)
            await messages.until(bool)
            gate.open()
    assert messages[0] == "2 calls wait for a slot of limits.held (1)"


PROGRAM = """
import anyio, fal_async
async def main():
    async with fal_async.AsyncClient() as client:
        await client.run("demo/echo", {"prompt": "a cat"})
anyio.run(main)
"""


@pytest.mark.slow
def test_variable_turns_on_log_lines(fal: Emulator) -> None:
    fal.register("demo/echo", lambda arguments: arguments)
    stderr = run_program(PROGRAM, **fal.environ, FAL_ASYNC_LOG="debug").stderr
    assert " DEBUG fal_async: run of demo/echo succeeded in " in stderr
    assert fal.key not in stderr
    assert run_program(PROGRAM, **fal.environ, FAL_ASYNC_LOG="info").stderr == ""


def test_unknown_log_level_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAL_ASYNC_LOG", "loud")
    with pytest.raises(InvalidRequestError, match="FAL_ASYNC_LOG must be debug or info"):
        AsyncClient("a:b")
