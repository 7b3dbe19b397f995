"""URLs of uploaded content: reused for half of their life, and few enough."""

from __future__ import annotations

import pytest

from fal_async._dispatch.cache import UploadCache, reuse_until


class Uploads:
    """Uploads with numbers as URLs, and a clock."""

    def __init__(self, lifetime: float | None = None) -> None:
        self.count = 0
        self.now = 0.0
        self._lifetime = lifetime

    async def upload(self) -> tuple[str, float]:
        self.count += 1
        return str(self.count), reuse_until(self.now, self._lifetime)

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(("lifetime", "reused"), [(3600, 1800), (60, 30), (None, 1800)])
async def test_url_is_reused_for_half_of_its_life(lifetime: float | None, reused: float) -> None:
    uploads = Uploads(lifetime)
    cache = UploadCache(9, uploads.clock)
    urls: list[str] = []
    for now in (0, reused - 1, reused, 2 * reused - 1):
        uploads.now = now
        urls.append(await cache.get("a", uploads.upload))
    assert urls == ["1", "1", "2", "2"]


async def test_oldest_content_is_forgotten_first() -> None:
    uploads = Uploads()
    cache = UploadCache(2, uploads.clock)
    urls = [await cache.get(content, uploads.upload) for content in "abacab"]
    assert urls == ["1", "2", "1", "3", "1", "4"]
    assert len(cache._entries) == 2


async def test_failed_upload_is_not_remembered() -> None:
    cache = UploadCache(9)

    async def fail() -> tuple[str, float]:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 -- it has no message
        await cache.get("a", fail)
    assert await cache.get("a", Uploads().upload) == "1"
