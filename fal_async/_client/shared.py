"""The client that programs find as `async_client`."""

from __future__ import annotations

from fal_async._client.client import AsyncClient

__all__ = ["async_client"]

async_client = AsyncClient()
