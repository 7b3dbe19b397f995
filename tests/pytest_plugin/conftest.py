"""Real runs of pytest with the plugin, each in a process and a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

import fal_async


@dataclass(frozen=True)
class Run:
    """One run of pytest: its exit status, its outcomes and its output."""

    exit_status: int
    output: str

    @property
    def outcomes(self) -> dict[str, int]:
        last = self.output.strip().splitlines()[-1]
        return {
            kind: int(count) for count, kind in re.findall(r"(\d+) (\w+)", last.split(" in ")[0])
        }


@dataclass(frozen=True)
class Project:
    """A folder with tests of a user."""

    path: Path

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.path / f"{name}.py").write_text(dedent(text))

    def configure(self, text: str) -> None:
        (self.path / "pytest.ini").write_text("[pytest]\n" + dedent(text))

    def run(self, *arguments: str, plugins: tuple[str, ...] | None = (), **environ: str) -> Run:
        """Run pytest with this plugin and others, and warnings as errors.

        Args:
            arguments: The arguments of pytest.
            plugins: The names of the other plugins; ``None`` loads all that are installed.
            environ: Environment variables.
        """
        variables = {k: v for k, v in os.environ.items() if not k.startswith(("FAL_", "PYTEST_"))}
        variables |= {"PYTHONPATH": str(Path(fal_async.__path__[0]).parent), **environ}
        if plugins is not None:
            variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            for name in ("fal_async", *plugins):
                arguments = ("-p", name, *arguments)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error"]
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.path,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        return Run(done.returncode, done.stdout)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.configure("")
    return made
