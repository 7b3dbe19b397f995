"""The cells of the documentation, in a Jupyter kernel."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import ROOT, draw, read_blocks
from tests.support.notebook import run_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fal_async.emulator import Emulator
    from tests.support.notebook import Notebook

pytestmark = pytest.mark.slow

CELLS = [block.code for block in read_blocks(ROOT / "docs" / "pages" / "notebooks.md")]
URL = "'https://v3b.fal.media/files/b/lighthouse.png'"


@pytest.fixture
def notebook(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    fal.register("fal-ai/flux/dev", draw)
    fal.register("acme/slow", fal.gate().wait)
    with run_kernel(fal, monkeypatch) as notebook:
        yield notebook


def test_documentation_cells_run_in_a_kernel(notebook: Notebook) -> None:
    awaiting, blocking = CELLS
    assert "await " in awaiting
    assert "await " not in blocking
    for cell in (awaiting, blocking, awaiting, blocking):
        assert notebook.run(cell) == [("result", URL)]


@pytest.mark.skipif(sys.platform == "win32", reason="the kernel is interrupted by a signal")
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("await fal_async.subscribe('acme/slow', {})", "CancelledError"),
        ("fal_async.sync.subscribe('acme/slow', {})", "KeyboardInterrupt"),
    ],
)
def test_interrupting_a_cell_cancels_its_job(
    fal: Emulator, notebook: Notebook, call: str, error: str
) -> None:
    assert notebook.run("import fal_async, fal_async.sync") == []
    notebook.start(call)
    fal.wait_for(lambda: fal.counters("acme/slow").executions == 1)
    notebook.interrupt()
    ((kind, name),) = notebook.shown()
    assert kind == "error"
    assert name in {"KeyboardInterrupt", "CancelledError"}
    fal.wait_for(lambda: fal.counters("acme/slow").cancelled == 1)
    assert notebook.run("await fal_async.status('acme/slow', '0')")[-1] == (
        "error",
        "NotFoundError",
    )


def test_results_show_their_pictures_as_html(notebook: Notebook) -> None:
    cell = "import fal_async\nawait fal_async.subscribe('fal-ai/flux/dev', {'prompt': 'a cat'})"
    ((kind, _),) = notebook.run(cell)
    assert kind == "result"
    assert notebook.html is not None
    assert f"<img src={URL}".replace("'", '"') in notebook.html
    assert "<summary>Output: request " in notebook.html


@pytest.mark.parametrize("module", ["fal_async", "fal_async.sync"])
def test_tracebacks_omit_frames_of_the_library(notebook: Notebook, module: str) -> None:
    wait = "" if module == "fal_async.sync" else "await "
    cell = f"import {module}\n{wait}{module}.run('acme/missing', {{}})"
    assert notebook.run(cell) == [("error", "NotFoundError")]
    assert "acme/missing" in notebook.traceback
    assert "dispatcher.py" not in notebook.traceback
    assert "_portal.py" not in notebook.traceback
    assert notebook.run(
        "import sys; str(len(__import__('traceback').extract_tb(sys.last_value.__traceback__)) > 3)"
    ) == [("result", "'True'")]
