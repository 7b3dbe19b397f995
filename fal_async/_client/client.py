"""`AsyncClient`: settings and life cycle of the client."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from fal_async._auth.credentials import Credentials
from fal_async._client.account import AccountMixin
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
from fal_async._core.hooks import check_hooks
from fal_async._core.secrets import conceal
from fal_async._dispatch.async_hooks import flush_async_hooks
from fal_async._dispatch.dispatcher import Dispatcher
from fal_async._dispatch.resources import SharedResources
from fal_async._http.transports import select_transport
from fal_async._net.tasks import shielded_cleanup
from fal_async._net.threads import run_in_thread
from fal_async._protocol import options
from fal_async.batch.calls import BatchMixin
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from fal_async._auth.credentials import KeyProvider
    from fal_async._dispatch.resources import Statistics
    from fal_async._platform.models import AsyncModels
    from fal_async._platform.requests import AsyncRequests
    from fal_async.hooks import Hook

__all__ = ["AsyncClient"]

#: Modules that are imported on first use, since they are slow to import.
_LATE_MODULES = (
    "_files.attachment_uploads",
    "_files.file",
    "_client.connector",
    "_client.http_over_websocket",
    "_client.sessions",
    "_websocket.handshake",
)


@set_module("fal_async")
class AsyncClient(
    InferenceMixin, QueueMixin, WebSocketMixin, StorageMixin, AccountMixin, BatchMixin
):
    """A client of the platform.

    The constructor does no I/O. Each event loop that uses the client has its own connections, which
    are closed with the loop. Close the client with ``async with`` or `aclose`.

    A copy shares the account and the connections, like the clients that `with_options` makes. A
    pickle contains the settings, but neither key nor transport nor hooks. An unpickled client looks
    up its key in the environment. If its key was an argument, it needs another one from
    `with_options`.

    Args:
        key: The API key, or a function (sync or async) that returns it and is called for each
            request; ``None`` uses ``FAL_KEY``, ``FAL_KEY_ID`` with ``FAL_KEY_SECRET``, the secrets
            of Colab, or the tokens of ``fal auth login``, and looks them up on first use.
        default_timeout: The connect, write and read timeout of short calls (submit, status, result
            and cancel), in seconds; ``None`` disables it.
        hosts: The base URLs, or one URL that all of them are below, as `Hosts.at` takes it;
            ``None`` reads the environment.
        transport: Any httpx transport, which the client then owns; ``None`` makes a
            `PooledTransport`, or one for the proxies in the environment.
        retry: The retry policy; ``None`` uses the defaults of `RetryPolicy`.
        limits: The concurrency limits; ``None`` uses the defaults of `Limits`.
        hooks: A function, or several, that are called with the events of all calls; see
            `fal_async.hooks`. ``None`` disables them.
        default_headers: The headers of all requests to the platform; those of a call take
            precedence. Other hosts, which store files, do not get them.
        user_agent: The name of your program, such as ``"my-app/1.0"``, which is added to the
            User-Agent header; ``None`` adds nothing.

    Raises:
        InvalidRequestError: An argument is invalid, such as an empty key.

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
        hosts: Hosts | str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        hooks: Hook | Sequence[Hook] | None = None,
        default_headers: Mapping[str, str] | None = None,
        user_agent: str | None = None,
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
            hooks=check_hooks(hooks),
            headers=options.default_headers(default_headers),
            user_agent=options.user_agent(user_agent),
        )
        self._owns_resources = True
        if level := os.environ.get("FAL_ASYNC_LOG"):
            # Late, since few programs use it.
            from fal_async.hooks._logging import configure_logging

            configure_logging(level)

    @property
    def default_timeout(self) -> float | None:
        """The timeout of short calls, in seconds; ``None`` if it is disabled."""
        return self._dispatcher.timeout

    @property
    def requests(self) -> AsyncRequests:
        """The requests that the account has made."""
        from fal_async._platform.requests import AsyncRequests  # most programs do without

        return AsyncRequests(self._dispatcher)

    @property
    def models(self) -> AsyncModels:
        """The platform's models, with their prices and schemas."""
        from fal_async._platform.models import AsyncModels  # most programs do without

        return AsyncModels(self._dispatcher)

    @property
    async def _client(self) -> Self:
        """The client itself, under the name that programs for the official client use."""
        return self

    def __repr__(self) -> str:
        dispatcher: Dispatcher | None = self.__dict__.get("_dispatcher")
        if dispatcher is None:
            return f"<{type(self).__name__} with invalid arguments>"
        settings = f"{dispatcher.credentials!r}, {dispatcher.timeout!r}, hosts={dispatcher.hosts!r}"
        return f"{type(self).__name__}({settings})"

    def __copy__(self) -> Self:
        return self.with_options()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.with_options()

    def __getstate__(self) -> dict[str, Any]:
        dispatcher = self._dispatcher
        settings = (
            dispatcher.credentials,
            dispatcher.timeout,
            dispatcher.hosts,
            dispatcher.policy,
            dispatcher.resources.limits,
            dispatcher.headers,
            dispatcher.user_agent,
        )
        return {**self.__dict__, "_dispatcher": settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        credentials, timeout, hosts, policy, limits, headers, user_agent = state["_dispatcher"]
        resources = SharedResources(select_transport(None), limits)
        credentials.bind(resources.post_form)
        dispatcher = Dispatcher(
            resources=resources,
            credentials=credentials,
            hosts=hosts,
            policy=policy,
            timeout=timeout,
            headers=headers,
            user_agent=user_agent,
        )
        self.__dict__.update(state, _dispatcher=dispatcher, _owns_resources=True)

    def with_options(
        self,
        *,
        key: str | KeyProvider | Unchanged = UNCHANGED,
        default_timeout: float | Unchanged | None = UNCHANGED,
        retry: RetryPolicy | Unchanged | None = UNCHANGED,
        hooks: Hook | Sequence[Hook] | Unchanged | None = UNCHANGED,
        default_headers: Mapping[str, str] | Unchanged | None = UNCHANGED,
        user_agent: str | Unchanged | None = UNCHANGED,
    ) -> Self:
        """Return a client with other settings over the same connections.

        Closing it does not close the connections.

        Args:
            key: Another key, or a function that returns it. ``None`` is an error, since it is most
                often a key that was not found.
            default_timeout: Another timeout, in seconds; ``None`` disables it.
            retry: Another retry policy; ``None`` uses the defaults of `RetryPolicy`.
            hooks: Other hooks; ``None`` disables them.
            default_headers: Other headers of all requests; ``None`` sends none.
            user_agent: Another name of your program; ``None`` adds none.

        Raises:
            InvalidRequestError: An argument is invalid, such as a key that is ``None``.

        Example:
            >>> client = fal_async.AsyncClient()
            >>> patient = client.with_options(default_timeout=600)
        """
        key = conceal(key)
        changes: dict[str, Any] = {}
        if key is None:
            raise InvalidRequestError(
                "key must be a key or a function that returns one, got None: omit it to keep the "
                "key of the client"
            )
        if key is not UNCHANGED:
            changes["credentials"] = Credentials(
                key, post_form=self._dispatcher.resources.post_form
            )
        if default_timeout is not UNCHANGED:
            changes["timeout"] = seconds("default_timeout", default_timeout)
        if retry is not UNCHANGED:
            changes["policy"] = check_policy(retry)
        if hooks is not UNCHANGED:
            changes["hooks"] = check_hooks(hooks)
        if default_headers is not UNCHANGED:
            changes["headers"] = options.default_headers(default_headers)
        if user_agent is not UNCHANGED:
            changes["user_agent"] = options.user_agent(user_agent)
        other = object.__new__(type(self))
        dispatcher = replace(self._dispatcher, **changes)
        other.__dict__.update(self.__dict__, _dispatcher=dispatcher, _owns_resources=False)
        return other

    async def prepare(self) -> None:
        """Load modules, certificates and credentials before the first request.

        Slow steps run in worker threads, so that a service that starts does not block its event
        loop. Nothing is sent, except to refresh an expired login.

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
        for name in _LATE_MODULES:
            await run_in_thread(partial(importlib.import_module, f"fal_async.{name}"))
        await dispatcher.resources.prepare()
        await dispatcher.credentials.authorization()

    def statistics(self) -> Statistics:
        """Return how many slots, connections and WebSockets the client uses on this event loop.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.AsyncClient() as client:
            ...         print(client.statistics().held)
            >>> anyio.run(main)
            LimitUsage(limit=1000, used=0, waiting=0)
        """
        return self._dispatcher.resources.statistics()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the jobs of all calls of `subscribe`, and close all connections.

        Later calls raise `ClientClosedError`, and so do the calls of `subscribe`. Other calls that
        have been sent are completed. The cancellations take five seconds at most, and one second
        more for each hundred jobs. They continue when the call is cancelled, until the event loop
        ends. The ids of jobs that could not be cancelled are logged as one warning.

        Async hooks have five seconds to receive the last events.
        """
        if self._owns_resources:
            await self._dispatcher.resources.aclose()
        if self._dispatcher.hooks:
            with shielded_cleanup():
                await flush_async_hooks()

    def _closing_time(self) -> float:
        """Return the longest time that closing may take on this event loop, in seconds."""
        return self._dispatcher.resources.cancellers.get().grace_period()
