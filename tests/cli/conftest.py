"""A home without credentials, a folder to work in, and the command line as a function."""

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
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the developer's own settings reaches a test."""
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
    """A platform that the environment points to."""
    with Emulator() as emulator:
        for name, value in emulator.environ.items():
            monkeypatch.setenv(name, value)
        yield emulator


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's endpoint takes no time for the eye."""
    monkeypatch.setattr(app, "_REST", 0.0)
