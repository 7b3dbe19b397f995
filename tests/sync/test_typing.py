"""Type checkers: the files of `tests/typing`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "tests/typing"],
    "pyright": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "tests/typing"],
}


@pytest.mark.slow
@pytest.mark.timeout(300)  # a cold cache makes them slow
def test_type_checkers_find_expected_errors() -> None:
    running = {
        name: subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name, command in CHECKERS.items()
    }
    reports = {name: process.communicate(timeout=300)[0] for name, process in running.items()}
    assert reports["mypy"].startswith("Success"), reports["mypy"]
    assert reports["pyright"].startswith("0 errors, 0 warnings"), reports["pyright"]
