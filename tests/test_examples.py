"""Every example in a docstring does what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import TYPE_CHECKING

import anyio
import pytest

import fal_async
from fal_async.cli._emulate import echo, echo_messages
from fal_async.emulator import Emulator
from tests.support.shared_client import close_shared_client

if TYPE_CHECKING:
    from collections.abc import Iterator


def examples() -> Iterator[doctest.DocTest]:
    """Yield the docstrings with examples, each once."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [info.name for info in pkgutil.walk_packages(fal_async.__path__, "fal_async.")]
    found: dict[str, doctest.DocTest] = {}
    for name in ["fal_async", *(name for name in names if not name.endswith("__main__"))]:
        module = importlib.import_module(name)
        for test in finder.find(module):
            found.setdefault(test.name, test)
        # The finder misses classes that show another module than the one that defines them.
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            if isinstance(value, type) and value.__module__ == name:
                for test in finder.find(value, f"{name}.{public}", False, vars(module).copy()):
                    found.setdefault(test.name, test)
    return (test for test in found.values() if test.examples)


def steps(arguments: dict[str, int]) -> Iterator[dict[str, int]]:
    """A stream of so many events."""
    for step in range(1, arguments["steps"] + 1):
        yield {"step": step}


@pytest.fixture(scope="module", autouse=True)
def platform() -> Iterator[None]:
    """The platform that examples call by default."""
    with Emulator() as emulator, pytest.MonkeyPatch.context() as patch:
        emulator.register("demo/echo", echo)
        emulator.set_price("demo/echo", "0.025")
        emulator.realtime("demo/echo")(echo)
        emulator.websocket("demo/socket")(echo_messages)
        emulator.register("demo/stream", steps)
        emulator.set_price("demo/echo", "0.025")
        for name, value in emulator.environ.items():
            patch.setenv(name, value)
        close_shared_client()
        yield
        close_shared_client()


@pytest.mark.parametrize("example", list(examples()), ids=lambda example: example.name)
def test_example_of_a_docstring_does_what_it_says(example: doctest.DocTest) -> None:
    example.globs.update(anyio=anyio, fal_async=fal_async)
    report: list[str] = []
    failures, _ = doctest.DocTestRunner().run(example, out=report.append)
    assert failures == 0, "".join(report)


def test_examples_in_methods_are_found() -> None:
    names = {example.name for example in examples()}
    assert {
        "fal_async.AsyncClient.with_options",
        "fal_async._client.queue.QueueMixin.subscribe",
        "fal_async._client.functions.run",
    } <= names
