"""`Emulator`: start, stop, register endpoints."""

from __future__ import annotations

import dataclasses
import time
import uuid
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakSet

import anyio.to_thread

from fal_async._config import Hosts
from fal_async.emulator._gate import Gate
from fal_async.emulator._gateway import Gateway
from fal_async.emulator._inspection import FileKeeper, InspectionMixin
from fal_async.emulator._recorder import Counters
from fal_async.emulator._registry import Endpoint, parse_id
from fal_async.emulator._request import PROXY_PATH
from fal_async.emulator._runners.asgi import AsgiRunner
from fal_async.emulator._runners.base import NoRunner
from fal_async.emulator._runners.functions import make_runner, websocket_runner
from fal_async.emulator._runners.realtime import RealtimeOptions, RealtimeRunner
from fal_async.emulator._runners.signatures import positional
from fal_async.emulator._runners.sockets import FunctionSocketRunner
from fal_async.emulator._server.http import Server
from fal_async.emulator._state import Accounts, PlatformState, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from fal_async.emulator._faults import Fault
    from fal_async.emulator._runners.functions import RunnerFunction
    from fal_async.emulator._runners.sockets import SocketRunner

    F = TypeVar("F", bound=Callable[..., Any])
    RunnerT = TypeVar("RunnerT", bound=RunnerFunction)

__all__ = ["Emulator", "SocketKeeper"]


#: An ASGI app takes the scope, and the two ends of the exchange.
_ASGI_PARAMETERS = 3


class SocketKeeper:
    """The part of an `Emulator` that has to do with sockets."""

    _platform: PlatformState

    def realtime(
        self,
        endpoint_id: str,
        *,
        buffering: int | None = None,
        session_timeout: float | None = None,
        max_batch_size: int = 1,
        timings: bool = False,
    ) -> Callable[[F], F]:
        """Put a realtime function behind an endpoint id, beside a runner that it has or will have.

        The function takes an input, or, by its annotation, an iterator of inputs; and it gives an
        output, or, as a generator or by its annotation, an iterator of outputs. In the order of
        these cases: each input is answered; one input is answered by many outputs; many inputs are
        answered by one output at their end; outputs are sent as they come. Inputs are validated
        where they are annotated with a pydantic model. The `Job` may be its second parameter.

        Args:
            endpoint_id: The id, without ``/realtime``.
            buffering: How many inputs wait before the oldest is dropped; ``None`` for any number.
                Clients may say otherwise, by ``max_buffering``.
            session_timeout: Seconds without an input after which a session ends; ``None`` for
                never.
            max_batch_size: How many inputs that wait the function is given at once, each as an
                argument of its own, for one output; it receives no `Job` if there are several.
            timings: Whether the time that it took is told after each answer.

        Raises:
            InvalidRequestError: The id has no owner and alias, or the function takes an iterator
                and is not async.
        """
        habits = RealtimeOptions(
            buffering=buffering,
            session_timeout=session_timeout,
            max_batch_size=max_batch_size,
            timings=timings,
        )

        def decorate(function: F) -> F:
            self._put(endpoint_id, RealtimeRunner(function, self._platform.threads, habits))
            return function

        return decorate

    def websocket(self, endpoint_id: str) -> Callable[[F], F]:
        """Put an app with a protocol of its own behind an endpoint id, beside a runner.

        The app is an async function of a `Socket`, or of a `Socket` and the `Job`, or an ASGI app.
        When it raises, the connection is cut.

        Args:
            endpoint_id: The id. Calls of longer ids that begin with it are for it, too.

        Raises:
            InvalidRequestError: The id has no owner and alias, or the function is not async.
        """

        def decorate(app: F) -> F:
            is_asgi = len(positional(app)) == _ASGI_PARAMETERS
            self._put(endpoint_id, AsgiRunner(app) if is_asgi else FunctionSocketRunner(app))
            return app

        return decorate

    def revoke_tokens(self) -> None:
        """Let all tokens that were given out be as if they had expired; open sockets stay open."""
        self._platform.tokens.revoke()

    def _put(self, endpoint_id: str, runner: SocketRunner) -> None:
        normal = str(parse_id(endpoint_id))
        earlier = self._platform.registry.get(normal)
        if earlier is None:
            endpoint = Endpoint(id=normal, runner=NoRunner(), socket=runner, counters=Counters())
        else:
            endpoint = dataclasses.replace(earlier, socket=runner)
        self._platform.registry.add(endpoint)


_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to find what listens there


_EMPTY_BALANCE = "Exhausted balance. Top up your balance at fal.ai/dashboard/billing."


class Emulator(InspectionMixin, FileKeeper, SocketKeeper):
    """A local fal.ai platform: a server on this machine that clients take for the real one.

    It runs in a thread of its own, from entering the context (or `start`) to leaving it (or
    `stop`), and can be used from any thread and any event loop.

    Args:
        host: The address to listen at.
        port: The port to listen at; 0 for a free one.
        key: The API key that is accepted; ``None`` makes one that nobody can guess.
        allow_origins: Origins of web pages that may call, such as ``"https://app.example"``;
            ``"*"`` lets all pages call. Pages of this machine (``http://localhost:3000``) always
            may; any other page in a browser here could run what is registered otherwise.
        concurrency: How many jobs of the account may run at once; ``None`` for any number.
        attempts: How many times the queue tries a runner that answers 503 or 504.
        backoff: Seconds before the second try; the next pauses are longer, up to eight
            times that.
        keep_alive: Seconds of silence after which a status stream carries a comment.
        log_window: How many of the latest log lines a polled status shows; ``None`` for all.
        bandwidth: How many bytes of a file are given out in a second; ``None`` for no bound.
        compression: Whether WebSockets are compressed by permessage-deflate for clients that offer
            it; as far as is known, those of the platform are not.
        clock: Tells the seconds by which results expire.
        certfile: A certificate chain in PEM format, to serve https; ``None`` serves http.
        keyfile: The certificate's private key; ``None`` when it stands in `certfile`.

    Example:
        >>> import httpx
        >>> with Emulator() as fal:
        ...     @fal.endpoint("acme/upper")
        ...     def upper(arguments: dict[str, str]) -> dict[str, str]:
        ...         return {"text": arguments["text"].upper()}
        ...
        ...     response = httpx.post(
        ...         f"{fal.url}/run/acme/upper",
        ...         json={"text": "hello"},
        ...         headers={"Authorization": f"Key {fal.key}"},
        ...     )
        >>> response.json()
        {'text': 'HELLO'}
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str | None = None,
        concurrency: int | None = None,
        attempts: int = 10,
        backoff: float = 0.01,
        keep_alive: float = 15.0,
        log_window: int | None = None,
        bandwidth: float | None = None,
        compression: bool = False,
        clock: Callable[[], float] = time.monotonic,
        certfile: str | None = None,
        keyfile: str | None = None,
        allow_origins: Sequence[str] = (),
    ) -> None:
        settings = Settings(
            allow_origins=frozenset(allow_origins),
            concurrency=concurrency,
            attempts=attempts,
            backoff=backoff,
            keep_alive=keep_alive,
            log_window=log_window,
            bandwidth=bandwidth,
            compression=compression,
            clock=clock,
        )
        self._platform = PlatformState(settings, Accounts(key or f"emulator:{uuid.uuid4()}"))
        self._host = host
        self._port = port
        self._certificate = (certfile, keyfile)
        self._server = None
        self._gates: WeakSet[Gate] = WeakSet()

    def start(self, *, host: str | None = None, port: int | None = None) -> Self:
        """Begin to listen.

        Args:
            host: The address to listen at; ``None`` for the one given before.
            port: The port to listen at; ``None`` for the one given before.

        Raises:
            OSError: The address cannot be listened at.
            RuntimeError: It has been started before.
        """
        if self._server is not None:
            raise RuntimeError("an emulator is started once; make another one")
        self._host = self._host if host is None else host
        self._port = self._port if port is None else port
        certfile, keyfile = self._certificate
        server = Server(
            Gateway(self._platform),
            compression=self._platform.settings.compression,
            certfile=certfile,
            keyfile=keyfile,
        )
        self._port = server.start(self._host, self._port, self._platform.aclose)
        self._server = server
        return self

    def stop(self) -> None:
        """Close every connection, cancel whatever runs, and end the thread."""
        for gate in self._gates:
            gate.open()
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
        with anyio.CancelScope(shield=True):  # stopping takes a bounded time
            await anyio.to_thread.run_sync(self.stop)

    @property
    def url(self) -> str:
        """The origin below which all hosts are found, as ``/run``, ``/queue`` and so on."""
        scheme = "http" if self._certificate[0] is None else "https"
        host = _ANY_ADDRESS.get(self._host, self._host)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def hosts(self) -> Hosts:
        """The base URLs, for a client's ``hosts=``."""
        return Hosts.at(self.url)

    @property
    def proxy_url(self) -> str:
        """A server proxy to this emulator, for the ``proxyUrl`` of the JavaScript client."""
        return f"{self.url}{PROXY_PATH}"

    @property
    def key(self) -> str:
        """The API key that is accepted."""
        return self._platform.accounts.key

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that point the clients of another process here."""
        return {"FAL_KEY": self.key, "FAL_ASYNC_BASE_URL": self.url}

    def register(
        self,
        endpoint_id: str,
        runner: RunnerFunction,
        *,
        concurrency: int | None = None,
        timeout: float | None = None,
        heartbeat: float | None = None,
        auth: bool = True,
    ) -> None:
        """Put a runner behind an endpoint id, in place of an earlier one.

        Args:
            endpoint_id: The id. Calls of longer ids that begin with it are for it, too, as long as
                no longer id is registered for them.
            runner: An ASGI app, which serves WebSockets, too; or a function of the arguments, or of
                the arguments and the `Job`.
                Functions that are not async run in threads; the items of a generator are the
                events of a stream; a first parameter that is annotated with a pydantic model
                receives the arguments validated. Apps find the `Job` in the state of their scope,
                where Starlette and FastAPI show it as ``request.state.job``.
            concurrency: How many of its jobs may run at once; ``None`` for any number.
            timeout: Seconds after which a run is given up with 504; ``None`` for never.
            heartbeat: Seconds of silence after which a generator's stream carries a comment;
                ``None`` for never.
            auth: Whether a key is needed.

        Raises:
            InvalidRequestError: The id has no owner and alias.
        """
        normal = str(parse_id(endpoint_id))
        earlier = self._platform.registry.get(normal)
        stands_behind = make_runner(runner, self._platform.threads, heartbeat=heartbeat)
        endpoint = Endpoint(
            id=normal,
            runner=stands_behind,
            socket=websocket_runner(stands_behind) or (earlier.socket if earlier else None),
            counters=Counters() if earlier is None else earlier.counters,
            limit=concurrency,
            private=auth,
            timeout=timeout,
        )
        self._platform.registry.add(endpoint)

    def endpoint(
        self,
        endpoint_id: str,
        *,
        concurrency: int | None = None,
        timeout: float | None = None,
        heartbeat: float | None = None,
        auth: bool = True,
    ) -> Callable[[RunnerT], RunnerT]:
        """`register` as a decorator."""

        def decorate(runner: RunnerT) -> RunnerT:
            self.register(
                endpoint_id,
                runner,
                concurrency=concurrency,
                timeout=timeout,
                heartbeat=heartbeat,
                auth=auth,
            )
            return runner

        return decorate

    def accept_key(self, key: str) -> None:
        """Accept another API key, of the same account."""
        self._platform.accounts.accept_key(key)

    def accept_bearer(self, token: str) -> None:
        """Accept the access token of a login, of the same account."""
        self._platform.accounts.accept_bearer(token)

    def lock(self, reason: str = _EMPTY_BALANCE) -> None:
        """Let the account start nothing, until `unlock`."""
        self._platform.accounts.lock(reason)

    def unlock(self) -> None:
        """Let the account start jobs again."""
        self._platform.accounts.lock(None)

    def fail(self, endpoint_id: str | None, *faults: Fault) -> None:
        """Script faults for an endpoint, or for all with ``None``.

        Each call meets the first fault that is meant for it and not used up.
        """
        normal = None if endpoint_id is None else str(parse_id(endpoint_id))
        for fault in faults:
            self._platform.faults.add(normal, fault)

    def gate(self) -> Gate:
        """A new gate, shut, for runners and faults to wait at; stopping the emulator opens it."""
        gate = Gate()
        self._gates.add(gate)
        return gate

    def expire(self, request_id: str) -> None:
        """Forget a job, as if the time for which it is kept were over."""
        self._platform.jobs.forget(request_id)

    def reset(self) -> None:
        """Cancel all jobs; forget them, faults, requests, counters and files; unlock.

        Endpoints stay registered. Direct runs and sessions that are open lose their connection. A
        runner that is a blocking function cannot be stopped: it goes on by itself, sees
        `Job.cancelled`, and takes no slot any more.

        Raises:
            RuntimeError: It is called by an async runner, which would have to wait for itself.
        """
        if self._server is None:
            self._platform.clear()
        else:
            self._server.call(self._platform.reset)
