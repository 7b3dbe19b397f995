"""Fixtures that every test may use."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from fal_async import AsyncClient
from fal_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# How long an example takes says more about the machine than about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell without job control starts background commands deaf to Ctrl-C, and so would be programs
# that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

BACKENDS = [
    pytest.param(("asyncio", {"debug": True}), id="asyncio"),
    pytest.param(("trio", {}), id="trio"),
]
if sys.platform != "win32":
    BACKENDS.insert(1, pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Every async test runs on asyncio (debug), asyncio with uvloop, and trio."""
    backend: tuple[str, dict[str, object]] = request.param
    return backend


@pytest.fixture
def fal() -> Iterator[Emulator]:
    """A platform of the test's own."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
async def client(fal: Emulator) -> AsyncIterator[AsyncClient]:
    """A client of that platform, closed after the test."""
    async with AsyncClient(fal.key, hosts=fal.hosts) as open_client:
        yield open_client
