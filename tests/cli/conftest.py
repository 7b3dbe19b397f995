"""Fixtures: an empty home, a working folder, a platform and the command line in this process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fal_async.cli._demo import app
from fal_async.emulator import Emulator
from tests.support.cli_runner import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the developer's own settings from the tests."""
    for name in [name for name in os.environ if name.startswith("FAL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def shell(capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    return Shell(capfdbinary)


@pytest.fixture
def fal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Start a platform, and set the environment variables that point to it."""
    with Emulator() as emulator:
        for name, value in emulator.environ.items():
            monkeypatch.setenv(name, value)
        yield emulator


@pytest.fixture
def no_step_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the pauses of the demo's endpoint."""
    monkeypatch.setattr(app, "_STEP_DELAY", 0.0)
