"""Code that uses the official client is tested against the emulator, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_plugin.conftest import Project

pytestmark = pytest.mark.slow

OFFICIAL = """
import pytest
{early}

def ask():  # the code under test
    import fal_client

    return fal_client.subscribe("acme/echo", arguments={{"a": 1}})

@pytest.mark.parametrize("number", range(2))
def test_module_level_functions(fal, number):
    fal.register("acme/echo", lambda arguments: arguments)
    assert ask() == {{"a": 1}}
    assert fal.requests[0].headers["user-agent"].startswith("fal-client/")

def test_own_client(fal):
    import fal_client

    fal.register("acme/echo", lambda arguments: arguments)
    client = fal_client.SyncClient()
    assert client.run("acme/echo", arguments={{"a": 2}}) == {{"a": 2}}
    url = client.upload(b"content", "text/plain")
    assert fal.files[url].content == b"content"
    client._client.close()

def test_async_client(fal):
    import asyncio
    import fal_client

    async def call():
        client = fal_client.AsyncClient()
        assert await client.run("acme/echo", arguments={{"a": 3}}) == {{"a": 3}}
        await (await client._client).aclose()

    fal.register("acme/echo", lambda arguments: arguments)
    asyncio.run(call())

def test_addresses_are_restored():
    import fal_client.client

    assert fal_client.client.RUN_URL_FORMAT == "https://fal.run/"
    assert "_client" not in vars(fal_client.sync_client)
"""


@pytest.mark.parametrize("early", ["import fal_client", ""])
def test_official_client_uses_the_emulator(project: Project, early: str) -> None:
    project.write(test_official=OFFICIAL.format(early=early))
    run = project.run("-W", "ignore::ResourceWarning")  # it does not close its client of the CDN
    assert (run.exit_status, run.outcomes) == (0, {"passed": 5}), run.output
