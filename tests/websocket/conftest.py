"""Fixtures of the WebSocket tests."""

from __future__ import annotations

from tests.support.servers import authority

__all__ = ["authority"]
