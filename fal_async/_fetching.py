"""Where a file is, and how it is asked for: redirects, and tokens for what is private."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fal_async._protocol.downloads import Version, download, redirected
from fal_async._protocol.operations import Credential
from fal_async._protocol.origins import is_cdn
from fal_async._transport.call_state import call_state
from fal_async.errors import (
    AuthenticationError,
    FalClientError,
    FalClientHTTPError,
    InvalidReplyError,
    NotFoundError,
    PermissionDeniedError,
)

if TYPE_CHECKING:
    from fal_async._protocol.operations import Lane, Operation
    from fal_async._transport.exchange import OpenReply
    from fal_async._transport.gates import Gates
    from fal_async._transport.perform import Performer

__all__ = ["FilePlace", "OpenFile", "is_there"]

#: How many redirects are followed in a row.
MOST_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class OpenFile:
    """A reply that is being read, and its place in the lane."""

    def __init__(self, reply: OpenReply, lane: Lane, gates: Gates) -> None:
        self.status_code = reply.status_code
        self.headers = reply.headers
        self.next_chunk = reply.next_chunk
        self._reply = reply
        self._lane = lane
        self._gates: Gates | None = gates

    def __del__(self) -> None:
        self._leave()  # it was dropped without being closed

    async def aclose(self) -> None:
        """Close the connection, or give it back when the body has been read."""
        self._leave()
        await self._reply.aclose()

    def _leave(self) -> None:
        gates, self._gates = self._gates, None
        if gates is not None:
            gates.leave(self._lane)


async def is_there(performer: Performer, url: str, size: int) -> bool:
    """Whether there is a file of that size."""
    try:
        file = await FilePlace(performer, url).open(0, None)
        await file.aclose()
        return Version.of(file.status_code, file.headers).size == size
    except FalClientError:
        return False


class FilePlace:
    """A place of a file. The account's key is never shown there.

    Redirects are followed. A file that is not for everyone is asked for again with a token for
    files, if it is on the platform's CDN.

    Args:
        performer: Performs the calls.
        url: Where the file is: an http or https URL.
    """

    def __init__(self, performer: Performer, url: str) -> None:
        self._performer = performer
        self._url = url
        self._private: set[str] = set()

    async def open(self, start: int, etag: str | None) -> OpenFile:
        """Ask for the file, from the byte `start` on where it has an ETag."""
        url = self._url
        for _ in range(MOST_REDIRECTS + 1):
            try:
                return await self._open_as_allowed(url, start, etag)
            except FalClientHTTPError as error:
                if error.status_code not in _REDIRECTS or "location" not in error.response_headers:
                    raise
                url = redirected(url, error.response_headers["location"])
        raise InvalidReplyError(f"the file was redirected more than {MOST_REDIRECTS} times")

    async def _open_as_allowed(self, url: str, start: int, etag: str | None) -> OpenFile:
        if url not in self._private:
            try:
                return await self._open(download(url, Credential.NONE, start=start, etag=etag))
            except (AuthenticationError, PermissionDeniedError, NotFoundError):
                if not await self._has_token_for(url):
                    raise
            self._private.add(url)
        return await self._open(download(url, Credential.CDN_TOKEN, start=start, etag=etag))

    async def _open(self, operation: Operation[None]) -> OpenFile:
        gates = self._performer.line.gates.get()
        await gates.enter(operation.lane, call_state())
        try:
            reply = await self._performer.open(operation)
        except BaseException:
            gates.leave(operation.lane)
            raise
        return OpenFile(reply, operation.lane, gates)

    async def _has_token_for(self, url: str) -> bool:
        if not is_cdn(url, self._performer.hosts):
            return False
        try:
            await self._performer.cdn_tokens.token()
        except FalClientError:  # what the file itself answered says more
            return False
        return True
