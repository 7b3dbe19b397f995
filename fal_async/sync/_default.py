"""The default client of the blocking functions and of unpickled objects."""

from __future__ import annotations

from fal_async._client.client import AsyncClient
from fal_async.sync._wrappers import SyncClientBase

__all__ = ["default_client"]

_clients: dict[str, SyncClientBase[AsyncClient]] = {}


def default_client() -> SyncClientBase[AsyncClient]:
    """Return the default client, which all threads share."""
    if "default" in _clients:
        return _clients["default"]
    return _clients.setdefault("default", SyncClientBase(AsyncClient()))
