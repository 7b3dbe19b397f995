"""`CdnTokens`: short-lived tokens for the CDN, cached per account and event loop."""

from __future__ import annotations

import time
from copy import copy
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from fal_async._protocol.credentials import cdn_token
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async._config import Hosts
    from fal_async._core.secrets import Secret
    from fal_async._net.event_loops import PerLoop
    from fal_async._protocol.credentials import CdnToken
    from fal_async._protocol.operation import Operation

__all__ = ["CdnTokenCache", "CdnTokens"]

#: The number of accounts whose tokens are cached.
MAX_ACCOUNTS: Final = 1024


class _Credentials(Protocol):
    async def authorization(self) -> Secret: ...


class _Execute(Protocol):
    async def __call__(self, operation: Operation[CdnToken], /) -> CdnToken: ...


class _Account:
    """The token of one account, which one task at a time requests.

    Attributes:
        lock: Held by the task that requests a token.
        token: The last token; ``None`` before the first.
        requests: The number of requests for a token.
        failed_request: The number of the last request that failed; 0 if none did.
        failure: The error of that request.
    """

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.token: CdnToken | None = None
        self.requests = 0
        self.failed_request = 0
        self.failure: FalClientError | None = None


class CdnTokenCache:
    """The tokens of the last used accounts on one event loop."""

    def __init__(self) -> None:
        self._accounts: dict[Secret, _Account] = {}

    def get(self, authorization: Secret) -> _Account:
        """Return the entry of an account, which its Authorization header identifies."""
        account = self._accounts.pop(authorization, None) or _Account()
        self._accounts[authorization] = account
        if len(self._accounts) > MAX_ACCOUNTS:
            del self._accounts[next(iter(self._accounts))]
        return account

    def discard(self, value: Secret) -> None:
        """Remove a token."""
        for account in self._accounts.values():
            if account.token is not None and account.token.authorization == value:
                account.token = None


class CdnTokens:
    """The source of the Authorization header for the CDN.

    A token belongs to the account of the client's current key. A key provider may return the keys
    of several accounts, and several clients may use the same account.

    Args:
        hosts: The base URLs.
        credentials: The source of the account's Authorization header.
        cache: The cached tokens, which other clients may share.
        execute: Executes the operation that requests a token.
        clock: Returns the Unix time, in seconds.
    """

    #: The CDN may reject a token before it expires; a new one replaces it.
    can_refresh = True

    def __init__(
        self,
        hosts: Hosts,
        credentials: _Credentials,
        cache: PerLoop[CdnTokenCache],
        execute: _Execute,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hosts = hosts
        self._credentials = credentials
        self._cache = cache
        self._execute = execute
        self._clock = clock

    async def token(self) -> CdnToken:
        """Return a token that does not expire soon, from the cache or from the platform."""
        account = self._cache.get().get(await self._credentials.authorization())
        if (cached := self._cached(account)) is not None:
            return cached
        requests = account.requests
        async with account.lock:
            if (cached := self._cached(account)) is not None:  # requested while this task waited
                return cached
            if account.failure is not None and account.failed_request > requests:  # likewise
                raise copy(account.failure)
            account.requests += 1
            try:
                operation = cdn_token(self._hosts, now=self._clock)
                account.token = token = await self._execute(operation)
            except FalClientError as error:
                account.failed_request = account.requests
                account.failure = copy(error)  # without its traceback
                raise
            return token

    async def authorization(self) -> Secret:
        """Return the header value to send now."""
        return (await self.token()).authorization

    def invalidate(self, value: Secret) -> None:
        """Discard a token that the CDN rejected."""
        self._cache.get().discard(value)

    def _cached(self, account: _Account) -> CdnToken | None:
        token = account.token
        return token if token is not None and self._clock() < token.refresh_at else None
