"""Type checkers: the files of `tests/typing`, and the blocks of the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import indent

import pytest

from tests.support.documents import read_blocks

ROOT = Path(__file__).parents[2]

CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy"],
    "pyright": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable],
}


def check(*paths: str) -> dict[str, str]:
    """Return the report of each checker about files and folders."""
    running = {
        name: subprocess.Popen([*command, *paths], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for name, command in CHECKERS.items()
    }
    return {name: process.communicate(timeout=300)[0] for name, process in running.items()}


@pytest.mark.slow
@pytest.mark.timeout(300)  # a cold cache makes them slow
def test_readme_and_typed_files_pass_strict_checkers(tmp_path: Path) -> None:
    blocks = read_blocks(ROOT / "README.md")
    code = "\n".join(block.code for block in blocks if block.language == "python")
    path = tmp_path / "readme.py"
    path.write_text(f"# pyright: strict\nasync def readme() -> None:\n{indent(code, ' ' * 4)}")
    reports = check("tests/typing", str(path))  # once, since each start reads the whole package
    assert reports["mypy"].startswith("Success"), reports["mypy"]
    assert reports["pyright"].startswith("0 errors, 0 warnings"), reports["pyright"]
