"""The emulator as tests hold it."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import anyio.to_thread

from fal_async._config import Hosts
from fal_async.emulator._auth import Accounts
from fal_async.emulator._gate import Gate
from fal_async.emulator._gateway import Gateway
from fal_async.emulator._platform import Platform
from fal_async.emulator._record import Counters
from fal_async.emulator._registry import Endpoint, normal_id
from fal_async.emulator._runners import runner_of
from fal_async.emulator._server import Server
from fal_async.emulator._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from fal_async.emulator._faults import Fault
    from fal_async.emulator._job import Job
    from fal_async.emulator._record import RecordedRequest, Route
    from fal_async.emulator._runners import RunnerFunction

    F = TypeVar("F", bound=RunnerFunction)

__all__ = ["DEFAULT_KEY", "Emulator"]

#: The key of an emulator that was given none.
DEFAULT_KEY = "emulator:00000000-0000-4000-8000-000000000000"


class Emulator:
    """A local fal.ai platform: a server on this machine that official and other clients take for the real one.

    It runs in a thread of its own, from entering the context (or `start`) to leaving it (or `stop`). Use it from any
    thread and any event loop.

    Args:
        host: The address to listen at.
        port: The port to listen at; 0 for a free one.
        key: The API key that is accepted.
        concurrency: How many jobs of the account may run at once; ``None`` for any number.
        attempts: How many times the queue tries a runner that fails with 503 or 504.
        backoff: Seconds before the second attempt; it doubles from there, up to a tenth of a second.
        keep_alive: Seconds of silence after which a status stream carries a comment.
        log_window: How many of the latest log lines a polled status shows; ``None`` for all.
        clock: Seconds, for the time that results are kept.
        certfile: A certificate chain in PEM format, to serve https; ``None`` serves http.
        keyfile: The certificate's private key; ``None`` when it stands in the `certfile`.

    Example:
        >>> import httpx
        >>> with Emulator() as fal:
        ...     @fal.endpoint("acme/upper")
        ...     def upper(arguments: dict[str, str]) -> dict[str, str]:
        ...         return {"text": arguments["text"].upper()}
        ...
        ...     reply = httpx.post(
        ...         f"{fal.url}/run/acme/upper",
        ...         json={"text": "hello"},
        ...         headers={"Authorization": f"Key {fal.key}"},
        ...     )
        >>> reply.json()
        {'text': 'HELLO'}
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str = DEFAULT_KEY,
        concurrency: int | None = None,
        attempts: int = 10,
        backoff: float = 0.01,
        keep_alive: float = 15.0,
        log_window: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        certfile: str | None = None,
        keyfile: str | None = None,
    ) -> None:
        settings = Settings(
            concurrency=concurrency,
            attempts=attempts,
            backoff=backoff,
            keep_alive=keep_alive,
            log_window=log_window,
            clock=clock,
        )
        self._host = host
        self._port = port
        self._key = key
        self._certificate = (certfile, keyfile)
        self._platform = Platform(settings, Accounts(key))
        self._server: Server | None = None

    def start(self) -> Self:
        """Begin to listen.

        Raises:
            OSError: The address cannot be listened at.
            RuntimeError: It has been started before.
        """
        if self._server is not None:
            raise RuntimeError("this emulator has been started already")
        certfile, keyfile = self._certificate
        self._server = Server(Gateway(self._platform), certfile=certfile, keyfile=keyfile)
        self._port = self._server.start(self._host, self._port, self._platform.aclose)
        return self

    def stop(self) -> None:
        """Close every connection, cancel whatever runs, and end the thread. Further calls do nothing."""
        if self._server is not None:
            self._server.stop()
            self._platform.threads.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await anyio.to_thread.run_sync(self.start)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):  # stopping is bounded
            await anyio.to_thread.run_sync(self.stop)

    @property
    def url(self) -> str:
        """The origin under which all hosts are found, as ``/run``, ``/queue`` and so on."""
        scheme = "http" if self._certificate[0] is None else "https"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104 - a name for it
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def hosts(self) -> Hosts:
        """The base URLs for a client's ``hosts=``."""
        return Hosts.at(self.url)

    @property
    def key(self) -> str:
        """The API key that is accepted."""
        return self._key

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that point a client of another process here."""
        return {"FAL_KEY": self.key, "FAL_ASYNC_BASE_URL": self.url}

    def register(
        self,
        endpoint_id: str,
        runner: RunnerFunction,
        *,
        concurrency: int | None = None,
        auth: bool = True,
    ) -> None:
        """Put a runner behind an endpoint id, in place of an earlier one.

        Args:
            endpoint_id: The id; calls of longer ids that begin with it are answered, too, if no longer id fits.
            runner: An ASGI app, or a function of the arguments, or of the arguments and the `Job`. Sync functions
                run in threads. A generator's items are the events of a stream. A first parameter annotated with a
                pydantic model receives the validated model.
            concurrency: How many of its jobs may run at once; ``None`` for any number.
            auth: Whether a key is needed.

        Raises:
            ValueError: The id has no owner and alias.
        """
        registry = self._platform.registry
        normal = normal_id(endpoint_id)
        earlier = registry.get(normal)
        endpoint = Endpoint(
            id=normal,
            runner=runner_of(runner, self._platform.threads),
            counters=earlier.counters if earlier else Counters(),
            limit=concurrency,
            private=auth,
        )
        registry.add(endpoint)

    def endpoint(
        self, endpoint_id: str, *, concurrency: int | None = None, auth: bool = True
    ) -> Callable[[F], F]:
        """`register` as a decorator."""

        def decorate(runner: F) -> F:
            self.register(endpoint_id, runner, concurrency=concurrency, auth=auth)
            return runner

        return decorate

    def accept_key(self, key: str) -> None:
        """Accept another API key, of the same account."""
        self._platform.accounts.accept_key(key)

    def accept_bearer(self, token: str) -> None:
        """Accept the access token of a login, of the same account."""
        self._platform.accounts.accept_bearer(token)

    def lock(
        self, reason: str = "Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
    ) -> None:
        """Refuse to start anything for this account, until `unlock`."""
        self._platform.accounts.lock(reason)

    def unlock(self) -> None:
        """Let the account start jobs again."""
        self._platform.accounts.lock(None)

    def fail(self, endpoint_id: str | None, *faults: Fault) -> None:
        """Script faults for an endpoint, or with ``None`` for all; each call meets the first one that is left."""
        normal = None if endpoint_id is None else normal_id(endpoint_id)
        for fault in faults:
            self._platform.faults.add(normal, fault)

    def gate(self) -> Gate:
        """A new gate, shut, for a runner or a fault to wait at. Stopping the emulator does not open it."""
        return Gate()

    def expire(self, request_id: str) -> None:
        """Let the time pass for which this request is kept."""
        self._platform.jobs.by_id.pop(request_id, None)

    def reset(self) -> None:
        """Forget faults, recorded requests, counters and the jobs that have ended; keep the endpoints."""
        self._platform.faults.clear()
        self._platform.record.clear()
        self._platform.accounts.lock(None)
        self._platform.jobs.forget_completed()
        for endpoint in self._platform.registry:
            endpoint.counters.clear()

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests that arrived, the latest ten thousand of them, oldest first."""
        return list(self._platform.record.requests)

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs of the queue that are kept, by request id."""
        return dict(self._platform.jobs.by_id)

    @property
    def connections(self) -> int:
        """How many connections of clients are open."""
        return 0 if self._server is None else len(self._server.connections)

    def counters(self, endpoint_id: str) -> Counters:
        """What happened at a registered endpoint so far; the object goes on counting.

        Raises:
            KeyError: Nothing is registered under this id.
        """
        endpoint = self._platform.registry.get(normal_id(endpoint_id))
        if endpoint is None:
            raise KeyError(endpoint_id)
        return endpoint.counters

    def count(self, route: Route) -> int:
        """How many requests of a route arrived, of all endpoints."""
        return self._platform.record.routes[route]

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = 10.0) -> None:
        """Block this thread until something is so.

        Args:
            predicate: Asked again whenever something happened; it must be quick.
            timeout: How many seconds to wait at most; ``None`` for ever.

        Raises:
            TimeoutError: It did not come to be so in time.
        """
        self._wait(predicate, timeout, threading.Event())

    async def until(self, predicate: Callable[[], bool], timeout: float | None = 10.0) -> None:
        """Wait in any event loop until something is so; as `wait_for`."""
        given_up = threading.Event()
        wait = partial(self._wait, predicate, timeout, given_up)
        limiter = anyio.CapacityLimiter(1)
        try:
            await anyio.to_thread.run_sync(wait, abandon_on_cancel=True, limiter=limiter)
        finally:
            self._platform.record.give_up(given_up)

    async def reached(
        self, endpoint_id: str, timeout: float | None = 10.0, **at_least: int
    ) -> None:
        """Wait until an endpoint's counters are at least so high.

        Args:
            endpoint_id: The endpoint.
            timeout: How many seconds to wait at most; ``None`` for ever.
            at_least: Values for attributes of `Counters`, such as ``executions=1``.

        Raises:
            TimeoutError: They were not in time.
        """
        counters = self.counters(endpoint_id)
        await self.until(
            lambda: all(getattr(counters, name) >= value for name, value in at_least.items()),
            timeout,
        )

    def _wait(
        self, predicate: Callable[[], bool], timeout: float | None, given_up: threading.Event
    ) -> None:
        if not self._platform.record.wait_for(predicate, timeout, given_up):
            if given_up.is_set():
                return
            raise TimeoutError(f"nothing of the kind happened within {timeout:g} seconds")
