"""Where files are uploaded to: the CDN, or the storage service with its presigned URLs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from fal_async._protocol import upload
from fal_async.errors import (
    AuthenticationError,
    FalClientHTTPError,
    InvalidReplyError,
    PermissionDeniedError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from fal_async._protocol.operations import Content
    from fal_async._protocol.upload import Label, PartedUpload
    from fal_async._transport.perform import Performer
    from fal_async.types import Repository

__all__ = ["Shelf", "on_one_of"]

T = TypeVar("T")
_log = logging.getLogger("fal_async")

#: Failures after which another repository may do better.
_PASSING: Final = (FalClientHTTPError, TransportError, InvalidReplyError)
#: Failures of the key, which is the same everywhere.
_FINAL: Final = (AuthenticationError, PermissionDeniedError)


class Shelf(Protocol):
    """A place for one file in a repository."""

    async def take(self, content: Content) -> str:
        """Upload the file in one request; gives its URL."""
        ...

    async def begin(self) -> PartedUpload:
        """Begin to upload it in parts."""
        ...


@dataclass(frozen=True, slots=True)
class _OnCdn:
    performer: Performer
    label: Label

    async def take(self, content: Content) -> str:
        token = await self.performer.cdn_tokens.token()
        operation = upload.upload_to_cdn(token.base_url, self.label, content)
        return await self.performer.perform(operation)

    async def begin(self) -> PartedUpload:
        token = await self.performer.cdn_tokens.token()
        operation = upload.begin_cdn_parts(self.performer.hosts, token.base_url, self.label)
        return await self.performer.perform(operation)


@dataclass(frozen=True, slots=True)
class _InStorage:
    performer: Performer
    label: Label

    async def take(self, content: Content) -> str:
        target = await self.performer.perform(upload.initiate(self.performer.hosts, self.label))
        return await self.performer.perform(upload.put(target, self.label, content))

    async def begin(self) -> PartedUpload:
        return await self.performer.perform(upload.begin_parts(self.performer.hosts, self.label))


_SHELVES: Final[dict[Repository, type[_OnCdn | _InStorage]]] = {
    "fal_v3": _OnCdn,
    "fal": _InStorage,
}


async def on_one_of(
    repositories: Sequence[Repository],
    performer: Performer,
    label: Label,
    attempt: Callable[[Shelf], Awaitable[T]],
) -> T:
    """Attempt something in each of the repositories, in turn, until it succeeds in one."""
    *others, last = repositories
    for repository in others:
        try:
            return await attempt(_SHELVES[repository](performer, label))
        except _PASSING as error:
            if isinstance(error, _FINAL):
                raise
            _log.warning("the upload to %s failed: %s; the next is tried", repository, error)
    return await attempt(_SHELVES[last](performer, label))
