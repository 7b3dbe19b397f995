"""Real servers for these tests."""

from __future__ import annotations

from tests.support.servers import authority, hypercorn_url, server_url, transport, uvicorn_url

__all__ = ["authority", "hypercorn_url", "server_url", "transport", "uvicorn_url"]
