"""A file on its way down: resumed where it broke off, and never more of it than is wanted."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Self

import anyio

from fal_async._protocol.downloads import Version, decode_data_url, download
from fal_async._protocol.operations import Credential
from fal_async._protocol.origins import is_cdn
from fal_async._protocol.retry import Breakdown, Retry, pause_before_retry
from fal_async._transport.exchange import Broken
from fal_async.errors import (
    AuthenticationError,
    FalClientError,
    InvalidReplyError,
    NotFoundError,
    PermissionDeniedError,
    TransportError,
)

if TYPE_CHECKING:
    from fal_async._protocol.operations import Operation
    from fal_async._transport.exchange import OpenReply
    from fal_async._transport.gates import Gates
    from fal_async._transport.perform import Performer

__all__ = ["Download"]


class _OpenFile:
    """A reply that is being read, and its place in the lane."""

    def __init__(self, reply: OpenReply, operation: Operation[None], gates: Gates) -> None:
        self.version = Version.of(reply.status_code, reply.headers)
        self.next_chunk = reply.next_chunk
        self._reply = reply
        self._lane = operation.lane
        self._gates: Gates | None = gates

    def __del__(self) -> None:
        self._leave()  # it was dropped without being closed

    async def aclose(self) -> None:
        self._leave()
        await self._reply.aclose()

    def _leave(self) -> None:
        gates, self._gates = self._gates, None
        if gates is not None:
            gates.leave(self._lane)


async def _open(performer: Performer, operation: Operation[None]) -> _OpenFile:
    gates = performer.line.gates.get()
    await gates.enter(operation.lane)
    try:
        reply = await performer.open(operation)
        return _OpenFile(reply, operation, gates)
    except BaseException:
        gates.leave(operation.lane)
        raise


class Download:
    """The bytes of a file, chunk by chunk. Leaving ``async with`` early closes the connection.

    The account's key goes nowhere. A file that is not for everyone is asked for again with a token
    for files, if it is on the platform's CDN.

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
        self._performer = performer
        self._url = url
        self._max_bytes = max_bytes
        self._credential = Credential.NONE
        self._version: Version | None = None
        self._file: _OpenFile | None = None
        self._ended = False
        self._position = 0
        self._to_skip = 0
        self._arrived = self._repeated = hashlib.sha256()
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
        if self._url[:5].lower() == "data:":
            self._ended = True
            content = decode_data_url(self._url)[1]
            self._check_size(len(content))
            return content
        if self._well_at < 0:
            self._well_at = anyio.current_time()
        try:
            file = self._file or await self._resume()
            chunk = await file.next_chunk()
            if chunk is not None:
                return self._take(chunk)
            self._end(file.version)
        except Broken as error:
            await self._pause(error)
        return b""

    async def _resume(self) -> _OpenFile:
        """Open the file where it broke off, or at its beginning."""
        self._file = file = await self._open_as_allowed()
        version = file.version
        if self._version is None:
            self._version = version
            self._check_size(version.size or 0)
        elif not version.continues(self._version) or version.start > self._position:
            raise self._changed()
        self._to_skip = self._position - version.start
        self._repeated = hashlib.sha256()
        return file

    async def _open_as_allowed(self) -> _OpenFile:
        try:
            return await _open(self._performer, self._operation())
        except (AuthenticationError, PermissionDeniedError, NotFoundError):
            if not await self._may_show_token():
                raise
        self._credential = Credential.CDN_TOKEN
        return await _open(self._performer, self._operation())

    def _operation(self) -> Operation[None]:
        etag = None if self._version is None else self._version.etag
        return download(self._url, self._credential, start=self._position, etag=etag)

    async def _may_show_token(self) -> bool:
        if self._credential is not Credential.NONE or not is_cdn(self._url, self._performer.hosts):
            return False
        try:
            await self._performer.cdn_tokens.token()
        except FalClientError:  # what the file itself answered says more
            return False
        return True

    def _take(self, chunk: bytes) -> bytes:
        if self._to_skip:
            chunk = self._skip(chunk)
        if chunk:
            self._failures, self._well_at = 0, anyio.current_time()
            self._position += len(chunk)
            self._check_size(self._position)
            if not self._has_etag:
                self._arrived.update(chunk)
        return chunk

    def _skip(self, chunk: bytes) -> bytes:
        """Leave out what came before; without an ETag, it has to be the same as then."""
        old, new = chunk[: self._to_skip], chunk[self._to_skip :]
        self._to_skip -= len(old)
        if not self._has_etag:
            self._repeated.update(old)
            if not self._to_skip and self._repeated.digest() != self._arrived.digest():
                raise self._changed()
        return new

    @property
    def _has_etag(self) -> bool:
        return self._version is not None and self._version.etag is not None

    def _end(self, version: Version) -> None:
        if self._to_skip or self._position != (version.size or self._position):
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
