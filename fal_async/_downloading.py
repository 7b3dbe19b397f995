"""A file on its way down: resumed where it broke off, and never more of it than is wanted."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Final, Self
from zlib import crc32

import anyio

from fal_async._checks import whole_number
from fal_async._fetching import FilePlace
from fal_async._protocol.downloads import (
    Version,
    decode_data_url,
    is_data_url,
    plain_url,
    size_beyond,
    suggested_name,
)
from fal_async._protocol.retry import Breakdown, Retry, pause_before_retry
from fal_async._transport.exchange import Broken
from fal_async._transport.threads import in_thread
from fal_async.errors import FalClientHTTPError, InvalidReplyError, TransportError

if TYPE_CHECKING:
    from fal_async._fetching import OpenFile
    from fal_async._transport.perform import Performer

__all__ = ["Download", "suggested_name_of"]

#: The status of a part that lies beyond the end of a file.
_BEYOND: Final = 416


class Download:
    """The bytes of a file, chunk by chunk. Leaving ``async with`` early closes the connection.

    Example:
        >>> async def main() -> None:
        ...     file = fal_async.File(url="data:,hello")
        ...     async with file.iter_bytes() as chunks:
        ...         async for chunk in chunks:
        ...             print(chunk)
        >>> anyio.run(main)
        b'hello'
    """

    def __init__(self, performer: Performer, url: str, max_bytes: int | None) -> None:
        if max_bytes is not None:
            whole_number("max_bytes", max_bytes, at_least=0)
        self._performer = performer
        self._url = plain_url(url)
        self._place = FilePlace(performer, self._url)
        self._max_bytes = max_bytes
        self._version: Version | None = None
        self._file: OpenFile | None = None
        self._suggested_name: str | None = None
        self._ended = False
        self._position = 0
        self._to_skip = 0
        self._arrived = self._repeated = 0
        self._failures = 0
        self._well_at = -1.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            while not self._ended:
                if chunk := await self._step():
                    return chunk
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection. It can be called again."""
        self._ended = True
        await self._close_file()

    async def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            await file.aclose()

    async def _step(self) -> bytes:
        """The next bytes that are new; none when there was something else to do."""
        if is_data_url(self._url):
            self._ended = True
            _, content = await in_thread(partial(decode_data_url, self._url))
            self._check_size(len(content))
            return content
        if self._well_at < 0:
            self._well_at = anyio.current_time()
        try:
            file = self._file or await self._resume()
            chunk = None if file is None else await file.next_chunk()
            if chunk is not None:
                return self._take(chunk)
            self._end()
        except Broken as error:
            await self._pause(error)
        return b""

    async def _resume(self) -> OpenFile | None:
        """Open the file where it broke off, or at its beginning; ``None`` if nothing is left."""
        earlier = self._version if self._position else None
        try:
            etag = None if earlier is None else earlier.etag
            self._file = file = await self._place.open(self._position, etag)
        except FalClientHTTPError as error:
            if error.status_code != _BEYOND or earlier is None:
                raise
            if size_beyond(error.response_headers) != self._position:
                raise self._changed() from error
            return None
        self._suggested_name = suggested_name(file.headers)
        version = Version.of(file.status_code, file.headers)
        if earlier is None:
            self._check_size(version.size or 0)
        elif not version.continues(earlier):
            raise self._changed()
        if version.start > self._position:
            raise InvalidReplyError(
                f"the file was to go on at byte {self._position}, but came from {version.start}"
            )
        if earlier is None or earlier.size is None:
            self._version = version
        self._to_skip = self._position - version.start
        self._repeated = 0
        return file

    def _take(self, chunk: bytes) -> bytes:
        if self._to_skip:
            chunk = self._skip(chunk)
        if chunk:
            self._failures, self._well_at = 0, anyio.current_time()
            self._position += len(chunk)
            self._check_size(self._position)
            if not self._has_etag:
                self._arrived = crc32(chunk, self._arrived)
        return chunk

    def _skip(self, chunk: bytes) -> bytes:
        """Leave out what came before; without an ETag, it has to be the same as then."""
        old, new = chunk[: self._to_skip], chunk[self._to_skip :]
        self._to_skip -= len(old)
        if not self._has_etag:
            self._repeated = crc32(old, self._repeated)
            if not self._to_skip and self._repeated != self._arrived:
                raise self._changed()
        return new

    @property
    def _has_etag(self) -> bool:
        return self._version is not None and self._version.etag is not None

    def _end(self) -> None:
        size = None if self._version is None else self._version.size
        if self._to_skip or self._position != (self._position if size is None else size):
            raise Broken(Breakdown("the file ended before its end", sent=True))
        self._ended = True

    async def _pause(self, error: Broken) -> None:
        await self._close_file()
        self._failures += 1
        pause = pause_before_retry(
            error.breakdown,
            Retry.SAFE,
            self._performer.policy,
            attempt=self._failures,
            elapsed=anyio.current_time() - self._well_at,
            random=random.random,
        )
        if pause is None:
            raise TransportError(
                f"the download broke off after {self._position} bytes: {error.breakdown.reason}"
            ) from error.__cause__
        await anyio.sleep(pause)

    def _check_size(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise InvalidReplyError(f"the file has more than {self._max_bytes} bytes")

    def _changed(self) -> TransportError:
        return TransportError(f"the file has changed after {self._position} bytes of it had come")


def suggested_name_of(download: Download) -> str | None:
    """Return the name that the server suggests; ``None`` also before the first chunk."""
    return download._suggested_name  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- no use to others
