"""Fixtures: a server of the platform API, and a client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fal_async import AsyncClient, Hosts
from tests.support.platform_api import PlatformApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def api() -> Iterator[PlatformApi]:
    """A server of the platform API."""
    with PlatformApi() as server:
        yield server


@pytest.fixture
async def account(api: PlatformApi) -> AsyncIterator[AsyncClient]:
    """A client of that server."""
    async with AsyncClient("id:secret", hosts=Hosts(platform=api.url)) as client:
        yield client
