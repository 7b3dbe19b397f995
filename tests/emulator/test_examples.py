"""Examples in the docstrings of the emulator."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fal_async.emulator

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(fal_async.emulator.__path__, "fal_async.emulator.")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_work(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
