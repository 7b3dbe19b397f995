"""The names that programs for the official client import from ``fal_client.auth``."""

from __future__ import annotations

from fal_async.auth import *  # noqa: F403 -- the same names
