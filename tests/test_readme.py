"""Every code block of the README is run."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import fal_async
from fal_async.emulator import AppError, Emulator, Job
from tests.support.shared_client import close_shared_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code for language, code in BLOCKS if language == "bash"]


def draw(arguments: dict[str, Any], job: Job) -> dict[str, Any]:
    job.log(f"drawing {arguments['prompt']}")
    return {"images": [{"url": "https://v3b.fal.media/files/b/lighthouse.png"}], "seed": 7}


def talk(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for text in ("foxes", "foxes are", "foxes are red"):
        yield {"output": text, "partial": text != "foxes are red", "error": None}


def flow(arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "submit", "node_id": "draw", "app_id": "fal-ai/flux/dev", "request_id": "1"}
    yield {"type": "completion", "node_id": "draw", "output": {"seed": 7}}
    yield {"type": "output", "output": {"seed": 7}}


def live(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


def edit(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"image": {"url": arguments["image_url"], "content_type": "image/png"}}


async def slow(arguments: dict[str, Any]) -> None:
    await anyio.sleep_forever()


def strict(arguments: dict[str, Any]) -> None:
    raise AppError(422, [{"loc": ["body", "image_url"], "msg": "too small", "type": "too_small"}])


@pytest.fixture
def platform(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """What the examples call; the blocking functions share a client made anew for each test."""
    fal.register("fal-ai/flux/dev", draw)
    fal.register("fal-ai/any-llm", talk)
    fal.register("acme/edit", edit)
    fal.register("workflows/acme/portrait", flow)
    fal.realtime("acme/live")(live)
    fal.register("acme/slow", slow)
    fal.register("acme/strict", strict)
    fal.accept_key("id:secret")
    fal.accept_key("another:key")
    close_shared_client()
    for name, value in fal.environ.items():
        monkeypatch.setenv(name, value)
    yield fal
    close_shared_client()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the examples find a picture and save another."""
    (tmp_path / "fox.png").write_bytes(b"a fox")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(path: Path) -> bytes:
    return path.read_bytes()


def test_the_ten_lines_run(platform: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    exec(PYTHON[0], {"__name__": "__main__"})

    assert capsys.readouterr().out == "https://v3b.fal.media/files/b/lighthouse.png\n"


async def test_the_other_blocks_run_one_after_another_as_in_a_notebook(
    platform: Emulator, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    async def app(scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    platform.register("acme/page", app, auth=False)
    names: dict[str, Any] = {
        "fal_async": fal_async,
        "some_url": f"{platform.url}/run/acme/page",
    }
    for code in PYTHON[1:]:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled = compile(code, "README.md", "exec", flags=flags, dont_inherit=True)
        with anyio.fail_after(20):
            ran = eval(compiled, names)
            if inspect.isawaitable(ran):
                await ran

    printed = capsys.readouterr().out
    assert len(names["results"]) == 100
    assert "drawing a lighthouse" in printed
    assert printed.count("foxes are red") == 2
    assert content(folder / "edited.png") == b"a fox"
    assert "too_small too small" in printed
    assert platform.counters("acme/slow").cancelled >= 1


def test_the_demo_command_runs(tmp_path: Path) -> None:
    """Its installation is the gate's matter; the program that follows it is run here."""
    arguments = SHELL[0].rpartition(".venv/bin/python ")[2].split()
    done = subprocess.run(
        [sys.executable, *arguments, "--out", str(tmp_path / "picture.png")],
        cwd=ROOT,
        capture_output=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_are_those_that_the_gate_runs() -> None:
    gate = (ROOT / ".ci" / "run").read_text("utf-8")

    assert "readme_command 1" in gate
    assert "readme_command 2" in gate
    assert SHELL[1].strip().endswith("-m pytest")


def test_the_emulator_command_is_understood() -> None:
    arguments = SHELL[2].split()[1:]
    done = subprocess.run(
        [sys.executable, *arguments, "--help"],
        cwd=ROOT,
        capture_output=True,
        timeout=50,
        check=True,
    )

    assert b"--port" in done.stdout


def test_blocks_fit_the_page() -> None:
    assert max(len(line) for code in PYTHON for line in code.splitlines()) <= 100
    assert all(textwrap.dedent(code) == code for code in PYTHON)
