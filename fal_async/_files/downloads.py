"""Resumable downloads; redirects; tokens for private files."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Final, Self
from zlib import crc32

import anyio

from fal_async._core.annotations import set_module
from fal_async._core.checks import whole_number
from fal_async._dispatch.call_state import CallState, use_call_state
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

__all__ = ["Download", "exists"]

#: The maximum number of redirects of one request.
MAX_REDIRECTS: Final = 10

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_RANGE_NOT_SATISFIABLE: Final = 416


@set_module("fal_async")
class Download:
    """The content of a file, chunk by chunk. Leaving ``async with`` early closes the connection.

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
        self._remote_file = _RemoteFile(dispatcher, self._url)
        self._max_bytes = max_bytes
        self._version: FileVersion | None = None
        self._response: StreamedResponse | None = None
        self._suggested_name: str | None = None
        self._ended = False
        self._position: int = 0
        self._to_skip: int = 0
        self._crc = self._resumed_crc = 0
        self._failures = 0
        self._last_progress = -1.0
        self._state = CallState()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            while not self._ended:
                if chunk := await self._read_chunk():
                    return chunk
        except BaseException as error:
            self._state.observer.end(error)
            await self.aclose()
            raise
        self._state.observer.end(None)
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection. Closing again does nothing."""
        self._ended = True
        self._state.observer.end(None, closed=True)
        await self._close_response()

    async def _read_chunk(self) -> bytes:
        """Read the next bytes; none at the end, after a failure, and while bytes are skipped."""
        if is_data_url(self._url):
            self._ended = True
            _, content = await run_in_thread(partial(decode_data_url, self._url))
            self._check_size(len(content))
            return content
        if self._last_progress < 0:
            self._last_progress = anyio.current_time()
            self._state = self._dispatcher.begin_call("download")
        try:
            response = self._response or await self._resume()
            chunk = None if response is None else await response.next_chunk()
        except ExchangeFailed as error:
            await self._back_off(error)
            return b""
        size = None if self._version is None else self._version.size
        if chunk is not None:
            self._state.observer.receive_bytes(len(chunk))
            chunk = self._skip_and_count(chunk)
            self._state.observer.advance_download(self._url, self._position, size, complete=False)
            return chunk
        if self._to_skip or (size is not None and size != self._position):
            failure = NetworkFailure("the response ended before the end of the file", sent=True)
            await self._back_off(ExchangeFailed(failure))
        else:
            self._ended = True
            self._state.observer.advance_download(self._url, self._position, size, complete=True)
        return b""

    async def _resume(self) -> StreamedResponse | None:
        """Request the rest of the file; return ``None`` if there are no more bytes."""
        earlier = self._version if self._position else None
        try:
            etag = None if earlier is None else earlier.etag
            with use_call_state(self._state):
                response = await self._remote_file.open(self._position, etag)
            self._response = response
        except FalClientHTTPError as error:
            if error.status_code != _RANGE_NOT_SATISFIABLE or earlier is None:
                raise
            if size_from_unsatisfied_range(error.response_headers) != self._position:
                raise self._changed() from error
            return None
        self._suggested_name = suggested_name(response.headers)
        version = FileVersion.of(response.status_code, response.headers)
        if earlier is None:
            self._check_size(version.size or 0)
        elif not version.matches(earlier):
            raise self._changed()
        if version.start > self._position:
            raise InvalidResponseError(
                f"the response must start at byte {self._position}, but starts at {version.start}"
            )
        if earlier is None or earlier.size is None:
            self._version = version
        if not self._position:
            self._state.observer.advance_download(self._url, 0, version.size, complete=False)
        self._to_skip = self._position - version.start
        self._resumed_crc = 0
        return response

    def _skip_and_count(self, chunk: bytes) -> bytes:
        """Return the new bytes of a chunk.

        A server that ignores the range sends the earlier bytes again. Without an ETag, their
        checksum shows whether the file is still the same.
        """
        has_etag = self._version is not None and self._version.etag is not None
        if self._to_skip:
            repeated, chunk = chunk[: self._to_skip], chunk[self._to_skip :]
            self._to_skip -= len(repeated)
            if not has_etag:
                self._resumed_crc = crc32(repeated, self._resumed_crc)
                if not self._to_skip and self._resumed_crc != self._crc:
                    raise self._changed()
        if chunk:
            self._failures, self._last_progress = 0, anyio.current_time()
            self._position += len(chunk)
            self._check_size(self._position)
            if not has_etag:
                self._crc = crc32(chunk, self._crc)
        return chunk

    async def _back_off(self, error: ExchangeFailed) -> None:
        """Wait before the next attempt.

        Raises:
            TransportError: No attempt is left.
        """
        await self._close_response()
        self._failures += 1
        delay = retry_delay(
            error.failure,
            Retry.IDEMPOTENT,
            self._dispatcher.policy,
            attempt=self._failures,
            elapsed=anyio.current_time() - self._last_progress,
            random=random.random,
        )
        if delay is None:
            raise TransportError(
                f"the download was interrupted after {self._position} bytes: {error.failure.reason}"
            ) from error.__cause__
        await anyio.sleep(delay)

    async def _close_response(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            await response.aclose()

    def _check_size(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise InvalidResponseError(f"the file has more than {self._max_bytes} bytes")

    def _changed(self) -> TransportError:
        return TransportError(f"the file changed after {self._position} bytes were downloaded")


class _RemoteFile:
    """A file at a URL. Requests for it never carry the account's key.

    Redirects are followed. A private file on the platform's CDN is requested again with a CDN
    token.

    Args:
        dispatcher: Executes the operations.
        url: An http or https URL.
    """

    def __init__(self, dispatcher: Dispatcher, url: str) -> None:
        self._dispatcher = dispatcher
        self._url = url
        self._token_required: set[str] = set()

    async def open(self, start: int, etag: str | None) -> StreamedResponse:
        """Request the file.

        Args:
            start: The first byte to receive, if the file still has the ETag.
            etag: The ETag of the bytes received before; ``None`` requests the whole file.
        """
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
            public = download(url, Credential.NONE, start=start, etag=etag)
            try:
                return await self._dispatcher.stream(public)
            except (AuthenticationError, PermissionDeniedError, NotFoundError):
                if not await self._can_get_token(url):
                    raise
            self._token_required.add(url)
        private = download(url, Credential.CDN_TOKEN, start=start, etag=etag)
        return await self._dispatcher.stream(private)

    async def _can_get_token(self, url: str) -> bool:
        if not is_cdn(url, self._dispatcher.hosts):
            return False
        try:
            await self._dispatcher.cdn_tokens.token()
        except FalClientError:  # the error of the file itself says more
            return False
        return True


async def exists(dispatcher: Dispatcher, url: str, size: int) -> bool:
    """Return whether a file of a size in bytes exists at a URL."""
    try:
        response = await _RemoteFile(dispatcher, url).open(0, None)
        await response.aclose()
        return FileVersion.of(response.status_code, response.headers).size == size
    except FalClientError:
        return False
