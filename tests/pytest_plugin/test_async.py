"""Async tests of users: the plugins of anyio, asyncio and trio, in parallel processes, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.pytest_plugin.conftest import Project

pytestmark = pytest.mark.slow

TESTS = """
import fal_async
import pytest

{mark}

async def ask():  # the code under test
    return await fal_async.subscribe("acme/echo", {{"a": 1}})

async def echo(arguments):
    return arguments

@pytest.mark.parametrize("number", range(2))
async def test_module_level_functions(fal, number):
    fal.register("acme/echo", echo)
    assert await ask() == {{"a": 1}}
    assert fal.counters("acme/echo").executions == 1

async def test_client(fal, async_fal_client):
    fal.register("acme/echo", echo)
    assert await async_fal_client.run("acme/echo", {{"a": 2}}) == {{"a": 2}}
    async with async_fal_client:
        assert await async_fal_client.subscribe("acme/echo", {{"a": 3}}) == {{"a": 3}}

async def test_job_that_never_ends(fal, async_fal_client):
    gate = fal.gate()
    async def wait(arguments):
        await gate.wait()
    fal.register("acme/waits", wait)
    await async_fal_client.submit("acme/waits", {{}})
    await fal.wait_for_counters("acme/waits", executions=1)
"""


@pytest.mark.parametrize(
    ("plugin", "mark", "settings", "passed"),
    [
        ("anyio", "pytestmark = pytest.mark.anyio", "", 8),
        ("anyio", "", "anyio_mode = auto", 8),
        ("asyncio", "", "asyncio_mode = auto", 4),
        ("asyncio", "pytestmark = pytest.mark.asyncio", "asyncio_mode = strict", 4),
        ("asyncio", "pytestmark = pytest.mark.asyncio(loop_scope='session')", "", 4),
        ("trio", "pytestmark = pytest.mark.trio", "", 4),
        ("trio", "", "trio_mode = true", 4),
    ],
)
def test_async_tests_need_no_more(
    project: Project, plugin: str, mark: str, settings: str, passed: int
) -> None:
    if plugin == "asyncio":
        settings += "\nasyncio_default_fixture_loop_scope = function\n"
    project.configure(settings)
    project.write(test_async=TESTS.format(mark=mark))
    run = project.run(plugins=(plugin,))
    assert (run.exit_status, run.outcomes) == (0, {"passed": passed}), run.output


def test_each_process_has_an_emulator(project: Project) -> None:
    project.configure("asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    project.write(
        test_parallel=TESTS.format(mark="")
        + """
def test_address(fal, tmp_path_factory):
    (tmp_path_factory.getbasetemp().parent / fal.url.rpartition(":")[2]).touch()

def test_another_address(fal, tmp_path_factory):
    (tmp_path_factory.getbasetemp().parent / fal.url.rpartition(":")[2]).touch()
"""
    )
    options = ("-n", "2", "--dist", "each", "--basetemp", str(project.path / "temp"))
    run = project.run(*options, plugins=("asyncio", "xdist"))
    assert (run.exit_status, run.outcomes) == (0, {"passed": 12}), run.output
    assert len([path for path in (project.path / "temp").iterdir() if path.name.isdigit()]) == 2
