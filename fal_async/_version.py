"""The version, and the ``User-Agent`` header that carries it."""

from __future__ import annotations

from typing import Final

__all__ = ["USER_AGENT", "__version__"]

__version__ = "0.1.0"

#: The value of the ``User-Agent`` header of every request.
USER_AGENT: Final = f"fal_async/{__version__} (python)"
