"""Tokens for the CDN: fetched when one is needed, kept while they hold."""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import anyio

from fal_async._protocol.cdn import cdn_token
from fal_async._transport.loops import PerLoop
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async._config import Hosts
    from fal_async._protocol.cdn import CdnToken
    from fal_async._protocol.operations import Operation

__all__ = ["CdnTokens"]


class _Perform(Protocol):
    async def __call__(self, operation: Operation[CdnToken], /) -> CdnToken: ...


@dataclass(slots=True)
class _Shelf:
    """What one event loop has: its tokens are fetched by one task at a time.

    Attributes:
        fetching: Held by the task that fetches.
        token: The last token, or ``None``.
        fetches: How many times one was fetched.
        failed: Which of these was the last to fail; 0 for none.
        failure: What it came to.
    """

    fetching: anyio.Lock = field(default_factory=anyio.Lock)
    token: CdnToken | None = None
    fetches: int = 0
    failed: int = 0
    failure: FalClientError | None = None


class CdnTokens:
    """The tokens of one account, an authority as the account's key is one.

    Args:
        hosts: The base URLs.
        perform: Performs the call that fetches a token.
        clock: The time of day, in seconds since 1970.
    """

    #: A token that is refused is replaced.
    renewable = True

    def __init__(
        self, hosts: Hosts, perform: _Perform, clock: Callable[[], float] = time.time
    ) -> None:
        self._hosts = hosts
        self._perform = perform
        self._clock = clock
        self._shelves: PerLoop[_Shelf] = PerLoop(_Shelf)

    async def token(self) -> CdnToken:
        """A token that holds for some time yet."""
        shelf = self._shelves.get()
        if (kept := self._kept(shelf)) is not None:
            return kept
        fetches = shelf.fetches
        async with shelf.fetching:
            if (kept := self._kept(shelf)) is not None:  # fetched while this task waited
                return kept
            if shelf.failure is not None and shelf.failed > fetches:  # or tried in vain
                raise copy(shelf.failure)
            return await self._fetch(shelf)

    async def _fetch(self, shelf: _Shelf) -> CdnToken:
        shelf.fetches += 1
        try:
            shelf.token = token = await self._perform(cdn_token(self._hosts, now=self._clock))
        except FalClientError as error:
            shelf.failed, shelf.failure = shelf.fetches, copy(error)  # without what led to it
            raise
        return token

    async def authorization(self) -> str:
        """The value to send now."""
        return (await self.token()).authorization

    def invalidate(self, value: str) -> None:
        """Forget a token that the CDN has refused."""
        shelf = self._shelves.get()
        if shelf.token is not None and shelf.token.authorization == value:
            shelf.token = None

    def _kept(self, shelf: _Shelf) -> CdnToken | None:
        token = shelf.token
        return token if token is not None and self._clock() < token.renew_at else None
