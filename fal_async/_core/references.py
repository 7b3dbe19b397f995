"""Values in arguments that are sent as simpler ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["FileReference"]


class FileReference:
    """A file that has a URL; in arguments, it is sent as its URL."""

    if TYPE_CHECKING:
        url: str
