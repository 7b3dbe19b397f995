"""The client of the blocking functions, which programs find as `sync_client`."""

from __future__ import annotations

from fal_async.sync import _client  # pyright: ignore[reportPrivateUsage] -- within the package

__all__ = ["sync_client"]

sync_client = _client()
