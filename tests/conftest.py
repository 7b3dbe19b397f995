"""Fixtures of all tests: backends, time limit, emulator and client."""

from __future__ import annotations

import gc
import os
import signal
import sys
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import settings

from fal_async import AsyncClient
from fal_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

# The duration of an example depends on the machine more than on the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell without job control makes background commands ignore SIGINT, and programs that tests start
# would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Where Python may not write bytecode, each program that a test starts would compile the package
# anew, which takes longer than most of them run.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

#: Seconds that an async test may take: far more than any needs, also on a loaded machine.
TIME_LIMIT = 20.0
SLOW_TIME_LIMIT = 90.0

BACKENDS = [
    pytest.param(("asyncio", {}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
if sys.platform != "win32":
    BACKENDS.insert(1, pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--debug-asyncio", action="store_true", help="Run asyncio in debug mode.")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from visiting thousands of tests over and over."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Run every async test on asyncio, asyncio with uvloop, and trio."""
    backend, options = request.param
    if backend == "asyncio" and not options and request.config.getoption("--debug-asyncio"):
        options = {"debug": True}
    return backend, options


@pytest.fixture(autouse=True)
def time_limit(request: pytest.FixtureRequest) -> None:
    """Cancel an async test that hangs, so that it fails with its own traceback."""
    test = getattr(request.node, "obj", None)
    if not iscoroutinefunction(test):
        return
    is_slow = request.node.get_closest_marker("slow") is not None

    @wraps(test)
    async def limited(**arguments: Any) -> None:
        with anyio.fail_after(SLOW_TIME_LIMIT if is_slow else TIME_LIMIT):
            await test(**arguments)

    request.node.obj = limited


@pytest.fixture
def fal() -> Iterator[Emulator]:
    """An emulator for one test."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
async def client(fal: Emulator) -> AsyncIterator[AsyncClient]:
    """A client of that emulator, closed after the test."""
    async with AsyncClient(fal.key, hosts=fal.hosts) as open_client:
        yield open_client
