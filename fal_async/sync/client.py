"""The names that programs for the official client import from ``fal_client.client``."""

from __future__ import annotations

from fal_async.client import *  # noqa: F403 -- the same names
