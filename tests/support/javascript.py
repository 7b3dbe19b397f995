"""The JavaScript project of the tests: the official packages, installed once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = ["NODE", "NPM", "javascript", "run_script"]

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


def run_script(project: Path, *command: str, timeout: float, **environ: str) -> Any:
    """Run a script of the project with Node.js, and return the JSON value that it prints.

    Args:
        project: The folder of the project.
        command: The options of Node.js, the name of the script, and its arguments.
        timeout: The longest time that the script may take, in seconds.
        environ: Environment variables, besides those of this process.
    """
    done = subprocess.run(
        [str(NODE), *command],
        cwd=project,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
