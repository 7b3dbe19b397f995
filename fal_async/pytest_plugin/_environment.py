"""The environment of a test: variables, default clients, and the addresses of `fal_client`."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from fal_async.emulator import Emulator

__all__ = ["environment"]

#: Variables that take precedence over a key, or name other hosts.
_CONFLICTING = ("FAL_FORCE_AUTH_BY_USER", "FAL_KEY_ID", "FAL_KEY_SECRET")
_OFFICIAL = "fal_client.client"
#: The variables that hold default clients, by module, and their values without a client.
_DEFAULT_CLIENTS: Final[dict[tuple[str, str], Callable[[], object] | None]] = {
    ("fal_async", "async_client"): None,
    ("fal_async._client.default", "async_client"): None,
    ("fal_async._client.default", "_clients"): lambda: None,
    ("fal_async.sync", "sync_client"): None,
    ("fal_async.sync._default", "_clients"): dict,
}
#: What the clients of `fal_client` cache on first use.
_CACHED = ("_auth", "_client", "_token_manager")
#: The default clients that are put aside, by the URL of their platform; ``""`` outside tests.
_kept: dict[str, dict[tuple[str, str], object]] = {}


@contextmanager
def environment(fal: Emulator) -> Generator[None]:
    """Point everything that looks for the platform at an emulator, within a block."""
    upstream_key = os.environ.get("FAL_KEY")  # for recordings of the real platform
    fal._platform.upstream_key = lambda: upstream_key
    with pytest.MonkeyPatch.context() as patch:
        for name in _CONFLICTING:
            patch.delenv(name, raising=False)
        for name, value in fal.environ.items():
            patch.setenv(name, value)
        redirection = _Redirection(fal, patch)
        sys.meta_path.insert(0, redirection)
        if fal_client := sys.modules.get(_OFFICIAL):
            redirection.redirect(fal_client)
        _swap_clients("", fal.url)
        _reset_fal_client()
        try:
            yield
        finally:
            sys.meta_path.remove(redirection)
            _swap_clients(fal.url, "")
            _reset_fal_client()


class _Redirection:
    """Points `fal_client` at an emulator: it reads no variables for most of its addresses.

    As a finder of modules it does so even if the test imports `fal_client` later.
    """

    def __init__(self, fal: Emulator, patch: pytest.MonkeyPatch) -> None:
        hosts = fal.hosts
        self._patch = patch
        self._addresses = {
            "RUN_URL_FORMAT": f"{hosts.run}/",
            "QUEUE_URL_FORMAT": f"{hosts.queue}/",
            "REALTIME_URL_FORMAT": f"ws{hosts.run.removeprefix('http')}/",
            "REST_URL": hosts.rest,
            "CDN_URL": hosts.cdn,
        }

    def redirect(self, module: ModuleType) -> None:
        """Replace the addresses in a module of `fal_client`."""
        for name, url in self._addresses.items():
            self._patch.setattr(module, name, url, raising=False)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module of `fal_client` that has addresses, to replace them once it is loaded."""
        spec = PathFinder.find_spec(name, path, target) if name == _OFFICIAL else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self.redirect(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # to run code after the module
        return spec


def _swap_clients(current: str, new: str) -> None:
    """Put the default clients of one platform aside, and bring back those of another.

    They are kept because clients read the environment once, and because an event loop that outlives
    the test closes their connections only when it ends.

    Args:
        current: The URL of the platform whose clients are the default ones; ``""`` outside tests.
        new: The URL of the other platform.
    """
    aside = _kept.setdefault(current, {})
    back = _kept.setdefault(new, {})
    for place, empty in _DEFAULT_CLIENTS.items():
        module, name = place
        if module in sys.modules:
            variables = vars(sys.modules[module])
            if name in variables:
                aside[place] = variables.pop(name)
            if place in back:
                variables[name] = back.pop(place)
            elif empty is not None:
                variables[name] = empty()


def _reset_fal_client() -> None:
    """Make the default clients of `fal_client` read the environment again."""
    fal_client: Any = sys.modules.get("fal_client")
    if fal_client is not None:
        for client in (fal_client.sync_client, fal_client.async_client):
            cache = cast("dict[str, Any]", vars(client))
            if client is fal_client.sync_client and "_client" in cache:
                cache["_client"].close()
            for attribute in _CACHED:
                cache.pop(attribute, None)
