"""Programs in processes of their own, for signals, forks and interpreter exits."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from fal_async.sync._portal import Portal

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

ROOT = Path(__file__).parents[2]

PREAMBLE = """
import logging, os, signal, sys, threading, warnings
from contextlib import asynccontextmanager
import anyio
from fal_async.sync._portal import Portal

portal = Portal()
warnings.filterwarnings("ignore", ".*use of fork.*")
logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns on slow machines

def ctrl_c():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

def say(*words):
    print(*words, flush=True)

def same(portal, value):
    return value

async def echo(value):
    return value
"""


@contextmanager
def started(command: Sequence[str], **options: Any) -> Generator[subprocess.Popen[str]]:
    """Start a program with its output in a pipe, and kill it at the end of the block.

    Args:
        command: The program and its arguments.
        options: Options of `subprocess.Popen`.
    """
    options = {"stdout": subprocess.PIPE, "text": True, **options}
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def start_program(source: str, **environment: str) -> subprocess.Popen[str]:
    """Start a program after `PREAMBLE`, in development mode and with warnings as errors."""
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PREAMBLE + dedent(source)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def run_program(source: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program after `PREAMBLE` until it exits."""
    with start_program(source, **environment) as process:
        try:
            out, err = process.communicate(timeout=30)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def printed_lines(source: str, **environment: str) -> list[str]:
    """Return the lines that a program prints. It must exit with 0 and write nothing to stderr."""
    done = run_program(source, **environment)
    assert done.stderr == "", done.stderr
    assert done.returncode == 0, done
    return done.stdout.splitlines()


_inherited = Portal()


def call_in_child(results: Any) -> None:
    """Make a call in a process that `multiprocessing` started."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # as in `PREAMBLE`

    async def thread_name() -> str:
        return threading.current_thread().name

    results.put((multiprocessing.current_process().name, _inherited.call(thread_name)))
