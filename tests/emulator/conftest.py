"""An emulator, and a plain HTTP client that holds its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fal_async.emulator import Emulator
from tests.support.http import client_of
from tests.support.javascript import javascript

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

__all__ = ["javascript"]


@pytest.fixture
def fal() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def http(fal: Emulator) -> Iterator[httpx.Client]:
    with client_of(fal) as client:
        yield client
