"""The cells that the README shows, in a Jupyter kernel."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.manager import KernelManager

from tests.test_readme import ROOT, draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client.blocking.client import BlockingKernelClient

    from fal_async.emulator import Emulator

SECTION = (
    (ROOT / "README.md").read_text("utf-8").partition("### Notebooks\n")[2].partition("\n## ")[0]
)
CELLS = re.findall(r"^```python\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
URL = "'https://v3b.fal.media/files/b/lighthouse.png'"


class Notebook:
    """A kernel that runs cells one after another."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager = manager
        self._client = client

    def start(self, code: str) -> None:
        """Start a cell."""
        self._client.execute(code, store_history=True)

    def interrupt(self) -> None:
        """Interrupt the kernel, as the button does."""
        self._manager.interrupt_kernel()

    def shown(self) -> list[tuple[str, str]]:
        """What the cell shows until it ends, by kind."""
        shown: list[tuple[str, str]] = []
        while True:
            message: dict[str, Any] = self._client.get_iopub_msg(timeout=30)
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return shown
            if kind == "stream":
                shown.append((content["name"], content["text"]))
            elif kind == "execute_result":
                shown.append(("result", content["data"]["text/plain"]))
            elif kind == "error":
                shown.append(("error", content["ename"]))

    def run(self, code: str) -> list[tuple[str, str]]:
        """What a cell shows."""
        self.start(code)
        return self.shown()


@pytest.fixture
def notebook(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    fal.register("fal-ai/flux/dev", draw)
    fal.register("acme/slow", fal.gate().wait)
    for name, value in {**fal.environ, "PYTHONWARNINGS": "error::RuntimeWarning"}.items():
        monkeypatch.setenv(name, value)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=50)
        yield Notebook(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_cells_of_the_readme_run_in_a_kernel(notebook: Notebook) -> None:
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
