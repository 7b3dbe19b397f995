"""The client that the blocking functions share."""

from __future__ import annotations

import fal_async.sync


def close_shared_client() -> None:
    """Close it; the next call makes another, from the environment as it is then."""
    if shared := fal_async.sync._clients.pop("shared", None):
        shared.close()
