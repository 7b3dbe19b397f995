"""Values that arguments may hold and that stand for something simpler."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["FileReference"]


class FileReference:
    """A file that is at a URL already; within arguments, its URL takes its place."""

    if TYPE_CHECKING:
        url: str
