"""The client: calls of the platform as coroutines."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from fal_async._auth.credentials import Credentials
from fal_async._client.inference import InferenceMixin
from fal_async._client.queue import QueueMixin
from fal_async._client.storage import StorageMixin
from fal_async._client.websockets import WebSocketMixin
from fal_async._config import (
    UNCHANGED,
    Hosts,
    Limits,
    RetryPolicy,
    Unchanged,
    check_hosts,
    check_policy,
)
from fal_async._core.annotations import set_module
from fal_async._core.checks import check_instance, seconds
from fal_async._core.secrets import conceal
from fal_async._dispatch.dispatcher import Dispatcher
from fal_async._dispatch.resources import SharedResources
from fal_async._http.transports import select_transport
from fal_async._net.threads import run_in_thread
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    import httpx

    from fal_async._auth.credentials import KeyProvider

__all__ = ["AsyncClient"]


@set_module("fal_async")
class AsyncClient(InferenceMixin, QueueMixin, WebSocketMixin, StorageMixin):
    """A client of the platform, for asyncio, uvloop and trio.

    Making one does no I/O. It may be used by several event loops, one after another; connections
    are kept for each loop and closed with it. Close it with ``async with`` or `aclose`.

    A copy is the same account over the same connections, as from `with_options`. A pickle holds the
    settings, but neither key nor transport: a client whose key was given refuses to call when it
    comes out of a pickle, until `with_options` gives it one; one that found its key in the
    environment searches there again.

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
        key = conceal(key)
        hosts = Hosts.from_environment(os.environ) if hosts is None else check_hosts(hosts)
        limits = Limits() if limits is None else check_instance("limits", limits, Limits)
        resources = SharedResources(select_transport(transport), limits)
        self._dispatcher = Dispatcher(
            resources=resources,
            credentials=Credentials(key, post_form=resources.post_form),
            hosts=hosts,
            policy=check_policy(retry),
            timeout=seconds("default_timeout", default_timeout),
        )
        self._owns_resources = True

    @property
    def default_timeout(self) -> float | None:
        """The bound of one HTTP exchange of the short calls, in seconds; ``None`` for no bound."""
        return self._dispatcher.timeout

    @property
    async def _client(self) -> Self:
        """The client that handles are bound to, where programs for the official client find it."""
        return self

    def __repr__(self) -> str:
        own: Dispatcher | None = self.__dict__.get("_dispatcher")
        if own is None:
            return f"<{type(self).__name__}, whose arguments were refused>"
        return f"{type(self).__name__}({own.credentials!r}, {own.timeout!r}, hosts={own.hosts!r})"

    def __copy__(self) -> Self:
        return self.with_options()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.with_options()

    def __getstate__(self) -> dict[str, Any]:
        own = self._dispatcher
        settings = (own.credentials, own.timeout, own.hosts, own.policy, own.resources.limits)
        return {**self.__dict__, "_dispatcher": settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        credentials, timeout, hosts, policy, limits = state["_dispatcher"]
        resources = SharedResources(select_transport(None), limits)
        credentials.bind(resources.post_form)
        dispatcher = Dispatcher(
            resources=resources,
            credentials=credentials,
            hosts=hosts,
            policy=policy,
            timeout=timeout,
        )
        self.__dict__.update(state, _dispatcher=dispatcher, _owns_resources=True)

    def with_options(
        self,
        *,
        key: str | KeyProvider | Unchanged = UNCHANGED,
        default_timeout: float | Unchanged | None = UNCHANGED,
        retry: RetryPolicy | Unchanged | None = UNCHANGED,
    ) -> Self:
        """The same client with other settings, sharing the connections; closing it closes nothing.

        Args:
            key: Another key, or a function that gives it. ``None`` is an error, since it is most
                often a key that was not found.
            default_timeout: Another bound, in seconds; ``None`` disables it.
            retry: Another policy; ``None`` takes the defaults of `RetryPolicy`.

        Raises:
            InvalidRequestError: An argument is not usable, such as a key that is ``None``.

        Example:
            >>> client = fal_async.AsyncClient()
            >>> patient = client.with_options(default_timeout=600)
        """
        key = conceal(key)
        changes: dict[str, Any] = {}
        if key is None:
            raise InvalidRequestError(
                "key must be a key or a function that gives one, got None: leave it out to keep "
                "the client's own"
            )
        if key is not UNCHANGED:
            changes["credentials"] = Credentials(
                key, post_form=self._dispatcher.resources.post_form
            )
        if default_timeout is not UNCHANGED:
            changes["timeout"] = seconds("default_timeout", default_timeout)
        if retry is not UNCHANGED:
            changes["policy"] = check_policy(retry)
        other = object.__new__(type(self))
        dispatcher = replace(self._dispatcher, **changes)
        other.__dict__.update(self.__dict__, _dispatcher=dispatcher, _owns_resources=False)
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
        dispatcher = self._dispatcher
        await run_in_thread(_load)
        await dispatcher.resources.prepare()
        await dispatcher.credentials.authorization()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the jobs that `subscribe` waits for, and close connections and sockets.

        Calls that come later raise `ClientClosedError`, and so do the calls of `subscribe` that are
        waiting. A `submit` or a `run` that is under way is finished. Cancelling takes five seconds
        and one more for each hundred jobs at most. It goes on when the caller is cancelled, until
        the event loop ends. The ids of jobs that could not be cancelled are logged as one warning.
        """
        if self._owns_resources:
            await self._dispatcher.resources.aclose()

    def _closing_time(self) -> float:
        """How long closing may take on this event loop, in seconds."""
        return self._dispatcher.resources.cancellers.get().grace_period()


def _load() -> None:
    """Load the code that is put off until it is first needed."""
    for name in ("_files.auto_upload", "_files.file", "_client.sessions", "_websocket.handshake"):
        importlib.import_module(f"fal_async.{name}")
