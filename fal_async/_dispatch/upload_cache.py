"""`UploadCache`: the URLs of uploaded content, so that the same content is uploaded once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

__all__ = ["UploadCache"]

#: The time for which a URL is reused if only the account's settings limit its life, in seconds:
#: half of the shortest common setting.
DEFAULT_REUSE: Final = 1800.0


@dataclass(slots=True)
class _Entry:
    """The URL of one content, which one task at a time uploads.

    Attributes:
        lock: Held by the task that uploads the content.
        url: The URL; ``None`` before the first upload.
        reusable_until: The Unix time until which the URL is reused, in seconds.
    """

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    url: str | None = None
    reusable_until: float = 0.0


class UploadCache:
    """The URLs of the content that was used last on one event loop.

    A URL is reused for half of its life, so that a job that waits in the queue can still read it.

    Args:
        size: The number of URLs that are kept; 0 keeps none.
        clock: Returns the Unix time, in seconds.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.time) -> None:
        self.size = size
        self._clock = clock
        self._entries: dict[Hashable, _Entry] = {}

    async def get(
        self, content: Hashable, lifetime: float | None, upload: Callable[[], Awaitable[str]]
    ) -> str:
        """Return the URL of a content, which is uploaded unless its URL is known.

        Args:
            content: The digest, the metadata and the account of the content.
            lifetime: The life of the file in seconds; ``None`` if only the account's settings limit
                it.
            upload: Uploads the content and returns its URL.
        """
        entry = self._entries.pop(content, None) or _Entry()
        self._entries[content] = entry
        if len(self._entries) > self.size:
            del self._entries[next(iter(self._entries))]
        async with entry.lock:
            now = self._clock()
            if entry.url is None or now >= entry.reusable_until:
                entry.url = await upload()
                entry.reusable_until = now + (DEFAULT_REUSE if lifetime is None else lifetime / 2)
            return entry.url
