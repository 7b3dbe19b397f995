"""The client: calls of the platform as coroutines."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from fal_async._config import Hosts, Limits, RetryPolicy
from fal_async._credentials import Credentials
from fal_async._direct import DirectCalls
from fal_async._protocol import options
from fal_async._queue import QueueCalls
from fal_async._socket_calls import SocketCalls
from fal_async._storage import StorageCalls
from fal_async._transport.carriers import carrier_of
from fal_async._transport.line import Line
from fal_async._transport.perform import Performer
from fal_async._transport.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from fal_async._credentials import KeyProvider

__all__ = ["AsyncClient"]


class AsyncClient(DirectCalls, QueueCalls, SocketCalls, StorageCalls):
    """A client of the platform, for asyncio, uvloop and trio.

    Making one does no I/O. It may be used by several event loops, one after another; connections
    are kept for each loop and closed with it. Close it with ``async with`` or `aclose`. A pickle of
    it holds its settings, but neither key nor transport.

    Args:
        key: The API key, or a function (sync or async) that gives it and is called for each
            request; ``None`` looks at ``FAL_KEY``, ``FAL_KEY_ID`` with ``FAL_KEY_SECRET``, Colab's
            secrets, and the tokens of ``fal auth login``, when first needed.
        default_timeout: The bound of one HTTP exchange of the calls that are over soon (submit,
            status, result, cancel), in seconds: of connecting, of writing, and of silence; ``None``
            disables it.
        hosts: The base URLs; ``None`` reads the environment.
        transport: Any httpx transport, which the client then owns; ``None`` makes a
            `PooledTransport`, or one that uses the proxies of the environment.
        retry: How often an exchange is tried; ``None`` takes the defaults of `RetryPolicy`.
        limits: How much is done at once; ``None`` takes the defaults of `Limits`.

    Raises:
        InvalidRequestError: An argument is not usable, such as an empty key.

    Example:
        >>> async def main() -> None:
        ...     async with fal_async.AsyncClient() as client:
        ...         result = await client.run("demo/echo", {"prompt": "a cat"})
        ...     print(result["prompt"])
        >>> anyio.run(main)
        a cat
    """

    def __init__(
        self,
        key: str | KeyProvider | None = None,
        default_timeout: float | None = 120.0,
        *,
        hosts: Hosts | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
    ) -> None:
        hosts = hosts or Hosts.from_environment(os.environ)
        line = Line(carrier_of(transport), limits or Limits())
        self._performer = Performer(
            line=line,
            authority=Credentials(key, post_form=line.post_form),
            hosts=hosts,
            policy=retry or RetryPolicy(),
            timeout=options.seconds("default_timeout", default_timeout),
        )
        self._owns_line = True

    @property
    def default_timeout(self) -> float | None:
        """The bound of one HTTP exchange of the short calls, in seconds; ``None`` for no bound."""
        return self._performer.timeout

    @property
    async def _client(self) -> Self:
        """The client that handles are bound to, where programs for the official client find it."""
        return self

    def __repr__(self) -> str:
        own = self._performer
        return f"AsyncClient({own.authority!r}, {own.timeout!r}, hosts={own.hosts!r})"

    def __reduce__(self) -> tuple[Callable[..., AsyncClient], tuple[Any, ...]]:
        own = self._performer
        return _unpickle, (type(self), own.timeout, own.hosts, own.policy, own.line.limits)

    def with_options(
        self,
        *,
        key: str | KeyProvider | None = None,
        default_timeout: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Self:
        """The same client with other settings, sharing the connections; closing it closes nothing.

        Args:
            key: Another key, as for the client; ``None`` keeps it.
            default_timeout: Another bound, in seconds; ``None`` keeps it.
            retry: Another policy; ``None`` keeps it.

        Example:
            >>> client = fal_async.AsyncClient()
            >>> patient = client.with_options(default_timeout=600)
        """
        changes: dict[str, Any] = {}
        if key is not None:
            changes["authority"] = Credentials(key, post_form=self._performer.line.post_form)
        if default_timeout is not None:
            changes["timeout"] = options.seconds("default_timeout", default_timeout)
        if retry is not None:
            changes["policy"] = retry
        other = object.__new__(type(self))
        other._performer = replace(self._performer, **changes)
        other._owns_line = False
        return other

    async def prepare(self) -> None:
        """Load code, certificates and the key, which the first calls would do otherwise.

        All that takes long happens in worker threads, so that a service which prepares while it
        starts never stops its event loop. Nothing is sent, but to renew a login that has run out.

        Raises:
            MissingCredentialsError: There is no key.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.AsyncClient() as client:
            ...         await client.prepare()
            ...         print(await client.run("demo/echo", {"prompt": "a cat"}))
            >>> anyio.run(main)
            {'prompt': 'a cat'}
        """
        performer = self._performer
        await in_thread(_load)
        await performer.line.prepare()
        await performer.authority.authorization()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close connections and sockets. Calls that come later raise `ClientClosedError`."""
        if self._owns_line:
            await self._performer.line.aclose()


def _load() -> None:
    """Load the code that is put off until it is first needed."""
    for name in ("attaching", "files", "realtime", "transport.connecting"):
        importlib.import_module(f"fal_async._{name}")


def _unpickle(
    cls: type[AsyncClient],
    default_timeout: float | None,
    hosts: Hosts,
    retry: RetryPolicy,
    limits: Limits,
) -> AsyncClient:
    return cls(None, default_timeout, hosts=hosts, retry=retry, limits=limits)
