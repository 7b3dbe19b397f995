"""The JavaScript project of the tests: the official packages, installed once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["NODE", "NPM", "javascript"]

PROJECT = Path(__file__).parents[1] / "emulator" / "js"
NODE = shutil.which("node")
NPM = shutil.which("npm")


@pytest.fixture(scope="session")
def javascript() -> Path:
    """The folder of the project, with its packages installed by one test process."""
    with (PROJECT / "package.json").open() as lock:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        needed = json.load(lock)["dependencies"]
        if not all((PROJECT / "node_modules" / name).exists() for name in needed):
            command = [str(NPM), "install", "--no-package-lock", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, timeout=100)
    return PROJECT
