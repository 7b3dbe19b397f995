"""The clients under test, connected to the stub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from fal_async import AsyncClient

__all__ = ["APP", "KEY", "fal_client_at", "ours_at"]

APP = "bench/app"
KEY = "bench-id:bench-secret"


def ours_at(url: str, **options: Any) -> AsyncClient:
    """Return our client, with options of its constructor."""
    from fal_async import AsyncClient, Hosts

    return AsyncClient(KEY, hosts=Hosts.at(url), **options)


def fal_client_at(url: str) -> ModuleType:
    """Return the official client's module with the stub as its hosts."""
    import fal_client.client as official

    official.RUN_URL_FORMAT = f"{url}/run/"
    official.QUEUE_URL_FORMAT = f"{url}/queue/"
    official.REALTIME_URL_FORMAT = f"ws{url.removeprefix('http')}/run/"
    official.REST_URL = f"{url}/rest"
    official.CDN_URL = f"{url}/cdn"
    return official
