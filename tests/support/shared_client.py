"""The default client of the blocking functions."""

from __future__ import annotations

from fal_async.sync import _default


def close_shared_client() -> None:
    """Close the default client. The next call makes another from the current environment."""
    if client := _default._clients.pop("default", None):
        client._close()
