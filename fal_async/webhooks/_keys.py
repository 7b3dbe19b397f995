"""`KeySet`: the platform's public keys, fetched and cached."""

from __future__ import annotations

import logging
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import anyio

from fal_async._net.event_loops import PerLoop
from fal_async._net.threads import run_in_thread
from fal_async._protocol.operation import Credential, Operation, Request, response_parser
from fal_async._protocol.retry import Retry
from fal_async.errors import FalClientError, UnverifiedWebhookError
from fal_async.webhooks._signature import find_key, parse_keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._protocol.response import Response

__all__ = ["KeySet"]

_log = logging.getLogger("fal_async")

#: The age from which keys are replaced by newer ones if the platform can be reached, in seconds.
REFRESH_AFTER: Final = 6 * 3600.0
#: The age from which keys are not used any more, in seconds: the platform's limit.
MAX_AGE: Final = 24 * 3600.0
#: The minimum time between two fetches while there are keys, in seconds.
MIN_INTERVAL: Final = 60.0
#: The longest time of a fetch with its retries, in seconds: the platform waits for 15.
FETCH_TIMEOUT: Final = 8.0
#: The maximum size of a key set, in bytes.
MAX_KEY_SET: Final = 64 * 1024
_ED25519: Final = "cryptography.hazmat.primitives.asymmetric.ed25519"


@dataclass(slots=True)
class _Cached:
    """The keys of one event loop.

    Attributes:
        lock: Held by the task that fetches.
        keys: The last keys, the one that verified the last callback first; empty before the first.
        fetched_at: The time of the last fetch that succeeded.
        tried_at: The time of the last fetch.
        fetch_count: The number of fetches.
        failure: The error of the last fetch; ``None`` if it succeeded.
    """

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    keys: tuple[Ed25519PublicKey, ...] = ()
    fetched_at: float = 0.0
    tried_at: float = 0.0
    fetch_count: int = 0
    failure: FalClientError | None = None


class KeySet:
    """The platform's public keys, which are the same for all accounts.

    One task at a time fetches the keys. While that fails, older keys are used for up to 24 hours.

    Args:
        dispatcher: Returns the dispatcher that fetches.
        url: The URL; ``None`` uses the base URL of the dispatcher's client.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        dispatcher: Callable[[], Awaitable[Dispatcher]],
        url: str | None,
        clock: Callable[[], float],
    ) -> None:
        self._dispatcher = dispatcher
        self._url = url
        self._clock = clock
        self._cache = PerLoop(_Cached)

    async def verify(self, signature: bytes, message: bytes) -> bool:
        """Return whether one of the keys has signed a message.

        Raises:
            UnverifiedWebhookError: There are no keys.
        """
        cached = self._cache.get()
        age = self._age(cached)
        if age >= MAX_AGE or (age >= REFRESH_AFTER and self._may_fetch(cached)):
            await self._refresh(cached)
            if self._age(cached) >= MAX_AGE:
                raise UnverifiedWebhookError(
                    f"cannot verify the callback: its keys cannot be fetched: {cached.failure}"
                ) from cached.failure
        keys = cached.keys
        if self._find(cached, signature, message):
            return True
        if cached.lock.locked() or self._may_fetch(cached):  # the platform may have a new key
            await self._refresh(cached)
        return cached.keys is not keys and self._find(cached, signature, message)

    def _find(self, cached: _Cached, signature: bytes, message: bytes) -> bool:
        keys = cached.keys
        key = find_key(keys, signature, message)
        if key is not None and key is not keys[0]:  # most callbacks have the key of the last one
            cached.keys = (key, *(other for other in keys if other is not key))
        return key is not None

    def _age(self, cached: _Cached) -> float:
        return self._clock() - cached.fetched_at if cached.keys else MAX_AGE

    def _may_fetch(self, cached: _Cached) -> bool:
        return not cached.lock.locked() and self._clock() - cached.tried_at >= MIN_INTERVAL

    async def _refresh(self, cached: _Cached) -> None:
        """Fetch the keys, or wait for the task that does."""
        fetch_count = cached.fetch_count
        async with cached.lock:
            if cached.fetch_count != fetch_count:
                return
            cached.tried_at = self._clock()
            try:
                with anyio.fail_after(FETCH_TIMEOUT):
                    # Imported in a thread, since that takes 0.1 s.
                    await run_in_thread(partial(import_module, _ED25519))
                    dispatcher = await self._dispatcher()
                    url = self._url or f"{dispatcher.hosts.rest}/.well-known/jwks.json"
                    keys = await dispatcher.execute(_key_set(url))
            except (FalClientError, TimeoutError) as error:
                if isinstance(error, FalClientError):
                    cached.failure = copy(error)  # without its traceback
                else:
                    cached.failure = FalClientError(f"no response within {FETCH_TIMEOUT:g} seconds")
                _log.warning("The keys of webhooks cannot be fetched: %s", cached.failure)
            else:
                cached.keys, cached.fetched_at, cached.failure = keys, cached.tried_at, None
            finally:
                cached.fetch_count += 1


def _key_set(url: str) -> Operation[tuple[Any, ...]]:
    """Fetch the keys. The request carries no key, and redirects are not followed."""

    def parse(response: Response) -> tuple[Any, ...]:
        return parse_keys(response.body)

    return Operation(
        name="key set",
        application="webhooks",
        request=Request("GET", url, {"accept": "application/json"}),
        parse=response_parser(parse),
        retry=Retry.IDEMPOTENT,
        credential=Credential.NONE,
        max_body=MAX_KEY_SET,
    )
