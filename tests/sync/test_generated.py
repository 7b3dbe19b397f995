"""Generated modules: up to date and complete."""

from __future__ import annotations

import inspect

import pytest

import fal_async
import fal_async.sync
from fal_async import AsyncClient, AsyncRequestHandle, EventStream
from fal_async._client import functions
from fal_async.sync import SyncClient, SyncEventStream, SyncRequestHandle
from tests.generate_sync import __main__ as generate
from tests.generate_sync.sources import PACKAGE


@pytest.mark.slow
def test_the_generated_modules_are_up_to_date() -> None:
    assert list(generate.stale()) == []


def test_sync_exports_every_public_name() -> None:
    assert set(fal_async.__all__) - set(fal_async.sync.__all__) == set()
    for name in set(fal_async.__all__) - {"__version__"}:
        shared = getattr(fal_async, name) is getattr(fal_async.sync, name)
        assert shared is (name not in functions.__all__), name  # calls block


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("async_class", "wrapper", "only_async"),
    [
        (AsyncClient, SyncClient, {"aclose"}),
        (AsyncRequestHandle, SyncRequestHandle, set()),
        (EventStream, SyncEventStream, {"aclose"}),
    ],
)
def test_wrapper_has_every_public_method(
    async_class: type, wrapper: type, only_async: set[str]
) -> None:
    assert public(async_class) - only_async == public(wrapper) - {"close"}
    for name in public(async_class) & public(wrapper):
        if inspect.isfunction(getattr(async_class, name)):
            theirs, ours = (
                inspect.signature(getattr(kind, name)) for kind in (async_class, wrapper)
            )
            assert [*map(bare, theirs.parameters.values())] == [
                *map(bare, ours.parameters.values())
            ]


def bare(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(annotation=inspect.Parameter.empty)


def test_docstrings_contain_no_async_code() -> None:
    text = "\n".join(
        (PACKAGE / "sync" / name).read_text("utf-8")
        for name in ("_client.py", "_file.py", "_functions.py", "_objects.py")
    )
    assert not [word for word in ("await ", "async with", "async for", "aclose") if word in text]
