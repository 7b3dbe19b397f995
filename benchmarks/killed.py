"""Programs that are killed, faults, and the executions of the jobs that they start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from fal_async.emulator import Emulator

__all__ = ["FAULTS", "line_count", "platform", "start", "wait_for"]


#: Faults of exchanges: errors, lost requests and lost responses.
FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"status": 503},
    {"drop": True},
    {"reset": True},
    {"drop_response": True},
    {"cut": 10},
)


@contextmanager
def platform(duration: Callable[[int], float]) -> Generator[tuple[Emulator, Counter[int]]]:
    """Run an emulator whose app counts its executions by input.

    Args:
        duration: Returns the time that the job of an input takes, in seconds.

    Yields:
        The emulator, and the executions.
    """
    from fal_async.emulator import Emulator

    executions: Counter[int] = Counter()
    with Emulator() as fal:

        @fal.endpoint("acme/app")
        async def app(arguments: dict[str, Any]) -> dict[str, Any]:
            executions[arguments["n"]] += 1
            await anyio.sleep(duration(arguments["n"]))
            return arguments

        yield fal, executions


def start(
    fal: Emulator, program: str, *arguments: object, folder: Path | None = None
) -> subprocess.Popen[str]:
    """Start a Python program that calls the emulator."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, **fal.environ},
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def wait_for(process: subprocess.Popen[str], executions: Counter[int], total: int) -> None:
    """Wait until a program has caused so many executions.

    Raises:
        RuntimeError: The program has ended before.
    """
    while executions.total() < total:
        if process.poll() is not None:
            raise RuntimeError(f"the program has ended with status {process.returncode}")
        time.sleep(0.005)


def line_count(program: str) -> int:
    """Return the number of lines of a program."""
    return program.strip().count("\n") + 1
