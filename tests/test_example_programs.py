"""Example programs: each is run against the emulator."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from examples.endpoints import PNG, register
from tests.support.documents import ROOT, run_program
from tests.support.notebook import run_kernel

if TYPE_CHECKING:
    from pathlib import Path

    from fal_async.emulator import Emulator
    from tests.support.notebook import Notebook

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
DRAW = "fal-ai/flux/dev"


@pytest.fixture
def platform(fal: Emulator) -> Emulator:
    """An emulator with the endpoints of the examples."""
    register(fal)
    return fal


def run(platform: Emulator, folder: Path, name: str, *arguments: str) -> str:
    """Return the output of a program."""
    return run_program([EXAMPLES / name, *arguments], platform.environ, folder).stdout


def test_subscribe_saves_image(platform: Emulator, tmp_path: Path) -> None:
    output = run(platform, tmp_path, "subscribe.py", "a", "fox")

    assert output.count("drawing a fox") == 1
    assert "billed 1" in output
    assert (tmp_path / "image-0.png").read_bytes() == PNG


def test_stream_prints_text_once(platform: Emulator, tmp_path: Path) -> None:
    assert run(platform, tmp_path, "stream.py") == "Foxes are red.\n"


def test_traced_call_prints_spans_and_counts(platform: Emulator, tmp_path: Path) -> None:
    lines = run(platform, tmp_path, "traced_service.py").splitlines()

    assert lines[-3:-1] == ["span: work", "slots in use: 0"]
    assert f"span: generate_content {DRAW}" in lines
    assert lines[-1] == "{'requests': 3, 'succeeded': 1}"


def test_realtime_receives_every_frame(platform: Emulator, tmp_path: Path) -> None:
    lines = run(platform, tmp_path, "realtime.py", "6").splitlines()

    assert [line.partition(":")[0] for line in lines] == [f"frame {n}" for n in range(6)]


def test_submitted_jobs_are_collected(platform: Emulator, tmp_path: Path) -> None:
    run(platform, tmp_path, "submit_and_collect.py", "submit", "a fox", "a hen")
    output = run(platform, tmp_path, "submit_and_collect.py", "collect")

    assert [line.partition(": http")[0] for line in output.splitlines()] == ["a fox", "a hen"]
    assert platform.counters(DRAW).executions == 2


def test_batch_continues_where_it_stopped(platform: Emulator, tmp_path: Path) -> None:
    platform.set_price(DRAW, "0.025")
    rows = [{"prompt": f"a fox, number {n}"} for n in range(30)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:20]))
    first = run(platform, tmp_path, "batch.py", str(path))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    second = run(platform, tmp_path, "batch.py", str(path))

    assert "20 ok, 0 failed, 0 from earlier runs" in first
    assert "30 ok, 0 failed, 20 from earlier runs" in second
    assert platform.counters(DRAW).executions == 30
    lines = (tmp_path / "foxes.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["index"] for line in lines) == list(range(30))
    assert len(list((tmp_path / "foxes").iterdir())) == 30


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra engines")
def test_ray_starts_each_row_once(platform: Emulator, tmp_path: Path) -> None:
    program = EXAMPLES / "ray_data.py"
    environ = {**platform.environ, "PYTHONWARNINGS": "default"}  # Ray warns of its own versions
    first = run_program([program, "20"], environ, tmp_path, timeout=180).stdout
    second = run_program([program, "30"], environ, tmp_path, timeout=180).stdout

    assert "20 ok, 0 failed" in first
    assert "30 ok, 0 failed" in second
    assert platform.counters(DRAW).executions == 30


def test_files_are_uploaded_and_saved(platform: Emulator, tmp_path: Path) -> None:
    (tmp_path / "fox.png").write_bytes(PNG)
    output = run(platform, tmp_path, "files.py", "fox.png")

    assert f"uploaded {len(PNG)} of {len(PNG)} bytes" in output
    assert (tmp_path / "fox-edited.png").read_bytes() == PNG


def test_blocking_threads_draw_prompts(platform: Emulator, tmp_path: Path) -> None:
    lines = run(platform, tmp_path, "blocking.py", "a fox", "", "a hen").splitlines()

    assert lines[0].startswith("a fox: http")
    assert lines[1].startswith(": failed: ")
    assert lines[2].startswith("a hen: http")


def test_emulator_example_passes(tmp_path: Path) -> None:
    options = ["-q", "-p", "no:asyncio", "-p", "no:cacheprovider", "-c", os.devnull]
    options += ["--confcutdir", str(EXAMPLES)]  # no conftest.py of the folders above
    arguments = ["-m", "pytest", *options, str(EXAMPLES / "test_with_emulator.py")]

    assert re.search(r"^\d+ passed", run_program(arguments, {}, tmp_path).stdout, re.MULTILINE)


def test_webhooks_are_saved_once(platform: Emulator, tmp_path: Path) -> None:
    image = {"images": [{"url": "data:image/png;base64,aGVsbG8=", "file_name": "fox.png"}]}
    signed = platform.sign(image, request_id="764cabcf")
    failed = platform.sign(
        {"detail": "boom"}, request_id="764cabd0", error="Invalid status code: 500"
    )
    forged = platform.sign(image, tampered=True)
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "uvicorn",
            "--app-dir",
            str(EXAMPLES),
            "--port",
            "0",
            "webhooks:app",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **platform.environ},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        found = next(filter(None, (re.search(r"running on (http\S+)", x) for x in server.stderr)))
        statuses = [
            httpx.post(f"{found[1]}/hooks/fal", content=each.body, headers=each.headers).status_code
            for each in (signed, signed, failed, forged)
        ]
    finally:
        server.terminate()
        server.communicate(timeout=20)
    assert statuses == [200, 200, 200, 401]
    assert [path.name for path in (tmp_path / "outputs" / "764cabcf").iterdir()] == ["fox.png"]
    assert (tmp_path / "outputs" / "764cabd0" / "error.txt").read_text() == "boom"


def test_notebook_runs(platform: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[dict[str, Any]] = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]

    with run_kernel(platform, monkeypatch) as notebook:
        shown = [run_cell(notebook, cell) for cell in cells if cell["cell_type"] == "code"]

    assert shown[0] == []
    assert shown[2] == [("result", "['a fox', 'a hen', 'a lighthouse']")]
    assert "Foxes are red." in shown[3][-1][1]
    assert shown[-1] == [("result", "True")]


def run_cell(notebook: Notebook, cell: dict[str, Any]) -> list[tuple[str, str]]:
    shown = notebook.run("".join(cell["source"]))
    assert not any(kind == "error" for kind, _ in shown), shown
    return shown


def test_every_example_is_listed() -> None:
    listed = set(re.findall(r"\[`([\w.]+)`\]", (EXAMPLES / "README.md").read_text()))
    there = {path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".ipynb"}}

    assert listed == there - {"endpoints.py"} | {"fastapi_service"}
