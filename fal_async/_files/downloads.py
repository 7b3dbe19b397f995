"""Resumable downloads; redirects; tokens for private files."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Final, Self
from zlib import crc32

import anyio

from fal_async._core.annotations import set_module
from fal_async._core.checks import whole_number
from fal_async._http.response import ExchangeFailed
from fal_async._net.threads import run_in_thread
from fal_async._protocol.downloads import (
    FileVersion,
    decode_data_url,
    download,
    is_data_url,
    normalize_url,
    resolve_redirect,
    size_from_unsatisfied_range,
    suggested_name,
)
from fal_async._protocol.operation import Credential
from fal_async._protocol.origins import is_cdn
from fal_async._protocol.retry import NetworkFailure, Retry, retry_delay
from fal_async.errors import (
    AuthenticationError,
    FalClientError,
    FalClientHTTPError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    TransportError,
)

if TYPE_CHECKING:
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._http.response import StreamedResponse

__all__ = ["Download", "RemoteFile", "exists", "suggested_name_of"]


#: How many redirects are followed in a row.
MAX_REDIRECTS: Final = 10


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


async def exists(dispatcher: Dispatcher, url: str, size: int) -> bool:
    """Whether there is a file of that size."""
    try:
        file = await RemoteFile(dispatcher, url).open(0, None)
        await file.aclose()
        return FileVersion.of(file.status_code, file.headers).size == size
    except FalClientError:
        return False


class RemoteFile:
    """A place of a file. The account's key is never shown there.

    Redirects are followed. A file that is not for everyone is asked for again with a token for
    files, if it is on the platform's CDN.

    Args:
        performer: Performs the calls.
        url: Where the file is: an http or https URL.
    """

    def __init__(self, dispatcher: Dispatcher, url: str) -> None:
        self._dispatcher = dispatcher
        self._url = url
        self._token_required: set[str] = set()

    async def open(self, start: int, etag: str | None) -> StreamedResponse:
        """Ask for the file, from the byte `start` on where it has an ETag."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            try:
                return await self._open_with_token_if_needed(url, start, etag)
            except FalClientHTTPError as error:
                if error.status_code not in _REDIRECTS or "location" not in error.response_headers:
                    raise
                url = resolve_redirect(url, error.response_headers["location"])
        raise InvalidResponseError(f"the file was redirected more than {MAX_REDIRECTS} times")

    async def _open_with_token_if_needed(
        self, url: str, start: int, etag: str | None
    ) -> StreamedResponse:
        if url not in self._token_required:
            try:
                return await self._dispatcher.stream(
                    download(url, Credential.NONE, start=start, etag=etag)
                )
            except (AuthenticationError, PermissionDeniedError, NotFoundError):
                if not await self._has_token_for(url):
                    raise
            self._token_required.add(url)
        return await self._dispatcher.stream(
            download(url, Credential.CDN_TOKEN, start=start, etag=etag)
        )

    async def _has_token_for(self, url: str) -> bool:
        if not is_cdn(url, self._dispatcher.hosts):
            return False
        try:
            await self._dispatcher.cdn_tokens.token()
        except FalClientError:  # what the file itself answered says more
            return False
        return True


#: The status of a part that lies beyond the end of a file.
RANGE_NOT_SATISFIABLE: Final = 416


@set_module("fal_async")
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

    def __init__(self, dispatcher: Dispatcher, url: str, max_bytes: int | None) -> None:
        if max_bytes is not None:
            whole_number("max_bytes", max_bytes, at_least=0)
        self._dispatcher = dispatcher
        self._url = normalize_url(url)
        self._place = RemoteFile(dispatcher, self._url)
        self._max_bytes = max_bytes
        self._version: FileVersion | None = None
        self._file: StreamedResponse | None = None
        self._suggested_name: str | None = None
        self._ended = False
        self._position = 0
        self._to_skip = 0
        self._crc = self._resumed_crc = 0
        self._failures = 0
        self._last_progress = -1.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            while not self._ended:
                if chunk := await self._next_chunk():
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

    async def _next_chunk(self) -> bytes:
        """The next bytes that are new; none when there was something else to do."""
        if is_data_url(self._url):
            self._ended = True
            _, content = await run_in_thread(partial(decode_data_url, self._url))
            self._check_size(len(content))
            return content
        if self._last_progress < 0:
            self._last_progress = anyio.current_time()
        try:
            file = self._file or await self._resume()
            chunk = None if file is None else await file.next_chunk()
            if chunk is not None:
                return self._accept(chunk)
            self._end()
        except ExchangeFailed as error:
            await self._pause(error)
        return b""

    async def _resume(self) -> StreamedResponse | None:
        """Open the file where it broke off, or at its beginning; ``None`` if nothing is left."""
        earlier = self._version if self._position else None
        try:
            etag = None if earlier is None else earlier.etag
            self._file = file = await self._place.open(self._position, etag)
        except FalClientHTTPError as error:
            if error.status_code != RANGE_NOT_SATISFIABLE or earlier is None:
                raise
            if size_from_unsatisfied_range(error.response_headers) != self._position:
                raise self._changed() from error
            return None
        self._suggested_name = suggested_name(file.headers)
        version = FileVersion.of(file.status_code, file.headers)
        if earlier is None:
            self._check_size(version.size or 0)
        elif not version.matches(earlier):
            raise self._changed()
        if version.start > self._position:
            raise InvalidResponseError(
                f"the file was to go on at byte {self._position}, but came from {version.start}"
            )
        if earlier is None or earlier.size is None:
            self._version = version
        self._to_skip = self._position - version.start
        self._resumed_crc = 0
        return file

    def _accept(self, chunk: bytes) -> bytes:
        if self._to_skip:
            chunk = self._skip(chunk)
        if chunk:
            self._failures, self._last_progress = 0, anyio.current_time()
            self._position += len(chunk)
            self._check_size(self._position)
            if not self._has_etag:
                self._crc = crc32(chunk, self._crc)
        return chunk

    def _skip(self, chunk: bytes) -> bytes:
        """Leave out what came before; without an ETag, it has to be the same as then."""
        old, new = chunk[: self._to_skip], chunk[self._to_skip :]
        self._to_skip -= len(old)
        if not self._has_etag:
            self._resumed_crc = crc32(old, self._resumed_crc)
            if not self._to_skip and self._resumed_crc != self._crc:
                raise self._changed()
        return new

    @property
    def _has_etag(self) -> bool:
        return self._version is not None and self._version.etag is not None

    def _end(self) -> None:
        size = None if self._version is None else self._version.size
        if self._to_skip or self._position != (self._position if size is None else size):
            raise ExchangeFailed(NetworkFailure("the file ended before its end", sent=True))
        self._ended = True

    async def _pause(self, error: ExchangeFailed) -> None:
        await self._close_file()
        self._failures += 1
        pause = retry_delay(
            error.failure,
            Retry.IDEMPOTENT,
            self._dispatcher.policy,
            attempt=self._failures,
            elapsed=anyio.current_time() - self._last_progress,
            random=random.random,
        )
        if pause is None:
            raise TransportError(
                f"the download broke off after {self._position} bytes: {error.failure.reason}"
            ) from error.__cause__
        await anyio.sleep(pause)

    def _check_size(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise InvalidResponseError(f"the file has more than {self._max_bytes} bytes")

    def _changed(self) -> TransportError:
        return TransportError(f"the file has changed after {self._position} bytes of it had come")


def suggested_name_of(download: Download) -> str | None:
    """Return the name that the server suggests; ``None`` also before the first chunk."""
    return download._suggested_name  # pyright: ignore[reportPrivateUsage] -- no use to others
