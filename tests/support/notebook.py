"""Jupyter kernels that run cells."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jupyter_client.manager import KernelManager

if TYPE_CHECKING:
    from collections.abc import Generator

    import pytest
    from jupyter_client.blocking.client import BlockingKernelClient

    from fal_async.emulator import Emulator


class Notebook:
    """A kernel that runs cells one after another.

    Attributes:
        html: The HTML of the last result; ``None`` without it.
        traceback: The last traceback, as the page shows it.
    """

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager = manager
        self._client = client
        self.html: str | None = None
        self.traceback = ""

    def start(self, code: str) -> None:
        """Start a cell."""
        self._client.execute(code, store_history=True)

    def interrupt(self) -> None:
        """Interrupt the kernel, as the button does."""
        self._manager.interrupt_kernel()

    def shown(self) -> list[tuple[str, str]]:
        """Return the output of the cell until it ends, by kind."""
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
                self.html = content["data"].get("text/html")
            elif kind == "error":
                shown.append(("error", content["ename"]))
                self.traceback = "\n".join(content["traceback"])

    def run(self, code: str) -> list[tuple[str, str]]:
        """Return the output of a cell."""
        self.start(code)
        return self.shown()


@contextmanager
def run_kernel(fal: Emulator, monkeypatch: pytest.MonkeyPatch) -> Generator[Notebook]:
    """Run a kernel whose calls go to an emulator."""
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
