"""Tokens for the CDN: fetched when one is needed, kept while they hold."""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from fal_async._protocol.cdn import cdn_token
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async._config import Hosts
    from fal_async._core.secrets import Secret
    from fal_async._net.event_loops import PerLoop
    from fal_async._protocol.cdn import CdnToken
    from fal_async._protocol.operation import Operation

__all__ = ["CdnTokenCache", "CdnTokens"]


#: How many accounts have their tokens kept.
MOST_ACCOUNTS: Final = 1024


class _Authority(Protocol):
    async def authorization(self) -> Secret: ...


class _Perform(Protocol):
    async def __call__(self, operation: Operation[CdnToken], /) -> CdnToken: ...


@dataclass(slots=True)
class _LoopState:
    """What one account has on one event loop: its tokens are fetched by one task at a time.

    Attributes:
        fetching: Held by the task that fetches.
        token: The last token, or ``None``.
        fetches: How many times one was fetched.
        failed: Which of these was the last to fail; 0 for none.
        failure: What it came to.
    """

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    token: CdnToken | None = None
    fetches: int = 0
    failed: int = 0
    failure: FalClientError | None = None


class CdnTokenCache:
    """The tokens of several accounts on one event loop; those used last are kept."""

    def __init__(self) -> None:
        self._shelves: dict[Secret, _LoopState] = {}

    def get(self, account: Secret) -> _LoopState:
        """The shelf of an account, of which its Authorization header is the name."""
        shelf = self._shelves.pop(account, None) or _LoopState()
        self._shelves[account] = shelf
        if len(self._shelves) > MOST_ACCOUNTS:
            del self._shelves[next(iter(self._shelves))]
        return shelf

    def discard(self, value: Secret) -> None:
        """Forget a token."""
        for shelf in self._shelves.values():
            if shelf.token is not None and shelf.token.authorization == value:
                shelf.token = None


class CdnTokens:
    """The tokens of a client, an authority as its key is one.

    They belong to the account that the client's authority names at the moment: a provider may name
    one after another, and several clients the same.

    Args:
        hosts: The base URLs.
        authority: Gives the Authorization header of the account.
        shelves: Where tokens are kept, perhaps for other clients too.
        perform: Performs the call that fetches a token.
        clock: The time of day, in seconds since 1970.
    """

    #: A token that is refused is replaced.
    refreshable = True

    def __init__(
        self,
        hosts: Hosts,
        authority: _Authority,
        shelves: PerLoop[CdnTokenCache],
        perform: _Perform,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hosts = hosts
        self._authority = authority
        self._shelves = shelves
        self._perform = perform
        self._clock = clock

    async def token(self) -> CdnToken:
        """A token that holds for some time yet."""
        shelf = self._shelves.get().get(await self._authority.authorization())
        if (kept := self._cached(shelf)) is not None:
            return kept
        fetches = shelf.fetches
        async with shelf.lock:
            if (kept := self._cached(shelf)) is not None:  # fetched while this task waited
                return kept
            if shelf.failure is not None and shelf.failed > fetches:  # or tried in vain
                raise copy(shelf.failure)
            return await self._fetch(shelf)

    async def _fetch(self, shelf: _LoopState) -> CdnToken:
        shelf.fetches += 1
        try:
            shelf.token = token = await self._perform(cdn_token(self._hosts, now=self._clock))
        except FalClientError as error:
            shelf.failed, shelf.failure = shelf.fetches, copy(error)  # without what led to it
            raise
        return token

    async def authorization(self) -> Secret:
        """The value to send now."""
        return (await self.token()).authorization

    def invalidate(self, value: Secret) -> None:
        """Forget a token that the CDN has refused."""
        self._shelves.get().discard(value)

    def _cached(self, shelf: _LoopState) -> CdnToken | None:
        token = shelf.token
        return token if token is not None and self._clock() < token.renew_at else None
