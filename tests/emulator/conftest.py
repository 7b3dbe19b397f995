"""A plain HTTP client that sends the key of the emulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.http import make_client
from tests.support.javascript import javascript

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from fal_async.emulator import Emulator

__all__ = ["javascript"]


@pytest.fixture
def http(fal: Emulator) -> Iterator[httpx.Client]:
    with make_client(fal) as client:
        yield client
