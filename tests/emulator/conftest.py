"""An emulator, and a plain HTTP client that holds its key."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from fal_async.emulator import Emulator
from tests.emulator.calls import client_of


@pytest.fixture
def fal() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def http(fal: Emulator) -> Iterator[httpx.Client]:
    with client_of(fal) as client:
        yield client
