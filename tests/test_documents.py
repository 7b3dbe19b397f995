"""README and documentation: every Python block is run, and commands are those of the gate."""

from __future__ import annotations

import json
import re
import textwrap
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import fal_async
import fal_async.emulator
import fal_async.proxy
import fal_async.stores
import fal_async.webhooks
from tests.support.documents import ROOT, read_blocks, register_endpoints, run_program, write_files
from tests.support.shared_client import close_shared_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fal_async.emulator import Emulator

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").glob("*.md"))]
PAGES = {path.stem: read_blocks(path) for path in DOCUMENTS}
CELLS = {
    name: [block for block in blocks if block.language == "python" and not block.title]
    for name, blocks in PAGES.items()
}
FILES = {name: [block for block in blocks if block.title] for name, blocks in PAGES.items()}
COMMANDS = [block.code for block in PAGES["README"] if block.language == "bash"]
#: Files whose imports are no dependency of the tests.
COMPILED_ONLY = {
    *("metrics.py", "tasks.py", "webhook_batch.py"),
    *("ray_foxes.py", "datasets_foxes.py", "dask_foxes.py", "dbos_foxes.py", "temporal_foxes.py"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the examples, with an image to send."""
    (tmp_path / "fox.png").write_bytes(b"a fox")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def platform(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """The platform of the examples; the blocking functions share a new client in each test."""
    register_endpoints(fal)
    close_shared_client()
    for name, value in fal.environ.items():
        monkeypatch.setenv(name, value)
    yield fal
    close_shared_client()


@pytest.mark.parametrize("name", [name for name, cells in CELLS.items() if cells])
async def test_page_runs_as_notebook(name: str, platform: Emulator, folder: Path) -> None:
    names: dict[str, Any] = {"some_url": f"{platform.url}/run/acme/page"}
    for block in CELLS[name]:
        with anyio.fail_after(20):
            await block.run_as_cell(names)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, files in FILES.items() if files])
def test_files_of_page_run(name: str, platform: Emulator, folder: Path) -> None:
    tests: list[str] = []
    for path in write_files(FILES[name], folder):
        if path.name.startswith("test_"):
            tests.append(path.name)
        elif path.name in COMPILED_ONLY:
            compile(path.read_text("utf-8"), path.name, "exec")
        elif path.name != "conftest.py":
            run_program([path], platform.environ, folder)
    if tests:
        options = ["-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "-o", "anyio_mode=auto"]
        done = run_program(["-m", "pytest", *options, *tests], {}, folder)
        assert " passed" in done.stdout


async def test_readme_prints_what_it_shows(
    platform: Emulator, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    for block in CELLS["README"]:
        await block.run_as_cell(names)

    printed = capsys.readouterr().out
    assert printed.count("drawing a lighthouse") == 1
    assert printed.count("foxes are red") == 1
    assert "too_small too small" in printed
    assert (folder / "edited.png").read_bytes() == b"a fox"


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 300


@pytest.mark.slow
def test_demo_command_runs(tmp_path: Path) -> None:
    """Run the program; the gate runs its installation."""
    command = COMMANDS[0].rpartition(".venv/bin/python ")[2].split()

    run_program([*command, "--out", str(tmp_path / "image.png")], {}, ROOT)

    assert (tmp_path / "image.png").read_bytes().startswith(b"\x89PNG")


def test_gate_runs_commands_and_builds_site() -> None:
    gate = (ROOT / ".ci" / "run").read_text("utf-8")

    assert "readme_command 1" in gate
    assert "readme_command 2" in gate
    assert " -m pytest" in COMMANDS[1]
    assert 'mkdocs" build --strict' in gate


@pytest.mark.slow
def test_command_line_commands_exist() -> None:
    commands = {
        line.removeprefix("python -m ").split()[1]
        for blocks in PAGES.values()
        for block in blocks
        if block.language == "bash"
        for line in block.code.splitlines()
        if line.startswith(("python -m fal_async ", "fal-async "))
    }

    assert commands >= {"emulate", "run", "subscribe"}
    for command in commands:
        assert "--help" in run_program(["-m", "fal_async", command, "--help"], {}, ROOT).stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", path.read_text("utf-8"))

    assert [link for link in links if not (path.parent / link).exists()] == []


def test_contributing_names_existing_files() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", text))

    assert named
    assert {name for name in named if not find(name)} == set()


def find(name: str) -> bool:
    return any((folder / name).exists() for folder in (ROOT, ROOT / "fal_async"))


async def test_cancellation_page_cancels_jobs(platform: Emulator, folder: Path) -> None:
    names: dict[str, Any] = {}
    for block in CELLS["cancellation"]:
        await block.run_as_cell(names)

    assert names["cancellation"].accepted
    await platform.wait_for_async(lambda: platform.counters("acme/slow").cancelled >= 2)


@pytest.mark.parametrize("name", PAGES)
def test_blocks_are_readable(name: str) -> None:
    for block in PAGES[name]:
        assert textwrap.dedent(block.code) == block.code
        assert max(map(len, block.code.splitlines())) <= 100
        assert block.language in {"python", "bash", "javascript", "yaml", "json", "text"}
        if block.language == "json":
            json.loads(block.code)


def test_navigation_has_every_page() -> None:
    pages = ROOT / "docs" / "pages"
    listed = re.findall(
        r": ([\w/-]+\.md)$", (ROOT / "docs" / "mkdocs.yml").read_text(), re.MULTILINE
    )

    assert sorted(listed) == sorted(
        path.relative_to(pages).as_posix() for path in pages.rglob("*.md")
    )


def test_reference_has_every_public_name() -> None:
    reference = (ROOT / "docs" / "pages" / "api").glob("*.md")
    text = "".join(path.read_text("utf-8") for path in reference)
    listed = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    public = {f"fal_async.{name}" for name in fal_async.__all__ if not name.startswith("_")}
    public |= {f"fal_async.emulator.{name}" for name in fal_async.emulator.__all__}
    public |= {f"fal_async.proxy.{name}" for name in fal_async.proxy.__all__}
    public |= {f"fal_async.stores.{name}" for name in fal_async.stores.__all__}
    public |= {f"fal_async.webhooks.{name}" for name in fal_async.webhooks.__all__}
    aliases = {name for name in public if name.removesuffix("_async") in public - {name}}

    assert public - aliases - listed == set()
