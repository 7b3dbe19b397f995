"""`Emulator`: start, stop, the account, faults."""

from __future__ import annotations

import dataclasses
import time
import uuid
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import anyio.to_thread

from fal_async._config import Hosts
from fal_async.emulator._cassettes import CassettesMixin
from fal_async.emulator._credentials import Account, Accounts
from fal_async.emulator._emulator.accounts import AccountsMixin
from fal_async.emulator._emulator.inspection import InspectionMixin
from fal_async.emulator._emulator.registration import RegistrationMixin
from fal_async.emulator._gate import Gate
from fal_async.emulator._gateway import Gateway
from fal_async.emulator._registry import parse_id
from fal_async.emulator._request import PROXY_PATH
from fal_async.emulator._server.http import Server
from fal_async.emulator._settings import Settings
from fal_async.emulator._state import PlatformState
from fal_async.emulator._webhooks import encoding
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from fal_async.emulator._faults import Fault
    from fal_async.emulator._webhooks.signing import SignedWebhook

__all__ = ["Emulator"]

#: The addresses at which clients connect to a server that listens on all addresses.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on


class Emulator(RegistrationMixin, AccountsMixin, InspectionMixin, CassettesMixin):
    """A local fal.ai platform: a server on this machine that clients use instead of the real one.

    The emulator serves direct runs, streams, the queue, WebSockets, storage and the CDN. Its
    endpoints are Python functions and ASGI apps. It runs in a thread of its own while its context
    is entered, or from `start` to `stop`. Use it from any thread and any event loop, with ``with``
    or ``async with``.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 for a free one.
        public_url: The origin at which clients reach the emulator, such as ``"http://fal:8000"`` in
            a network of containers. ``None`` for the address that it listens on.
        key: The accepted API key. ``None`` generates a random one.
        user_id: The id of the account, which webhooks carry. ``None`` generates a random one.
        allow_origins: The origins of web pages that may send requests, such as
            ``"https://app.example"``; ``"*"`` allows all. Pages of this machine, such as
            ``http://localhost:3000``, are always allowed. Other pages in a browser on this machine
            could otherwise run the registered endpoints.
        concurrency: The maximum number of concurrent runs of the account. ``None`` for no limit.
        attempts: The maximum number of runs of a queued job whose runner responds with 503 or 504.
        backoff: The delay before the first retry, in seconds. Later delays are up to eight times as
            long.
        keep_alive: The time without events after which a status stream sends a comment, in seconds.
        log_window: The number of latest log lines in a polled status. ``None`` for all.
        bandwidth: The maximum speed of a download, in bytes per second. ``None`` for no limit.
        compression: Whether WebSockets use permessage-deflate with clients that offer it. As far as
            is known, the platform does not.
        clock: Returns the time in seconds, by which results, files and tokens expire.
        speed: How many times faster than on the platform results expire and webhooks are retried.
            On the platform, results are kept for an hour; those of 10 kB or more, for 6 minutes.
        listing_delay: The time from the arrival of a request until the platform API lists it, in
            seconds. It is not known how long the platform takes.
        webhook_timeouts: The timeout of the first attempt to deliver a webhook, and that of each
            later one, in seconds.
        private_webhooks: Whether webhooks are delivered to private and loopback addresses. The
            platform drops them, but the receivers of tests are on this machine.
        cancelled_webhooks: Whether cancelled jobs are delivered to webhooks. It is not known
            whether the platform does.
        certfile: The path of a certificate chain in PEM format, to serve https. ``None`` serves
            http.
        keyfile: The path of the private key. ``None`` if `certfile` contains it.

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
        public_url: str | None = None,
        key: str | None = None,
        user_id: str | None = None,
        concurrency: int | None = None,
        attempts: int = 10,
        backoff: float = 0.01,
        keep_alive: float = 15.0,
        log_window: int | None = None,
        bandwidth: float | None = None,
        compression: bool = False,
        clock: Callable[[], float] = time.monotonic,
        speed: float = 1.0,
        listing_delay: float = 0.0,
        webhook_timeouts: tuple[float, float] = (15.0, 120.0),
        private_webhooks: bool = True,
        cancelled_webhooks: bool = False,
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
            speed=speed,
            listing_delay=listing_delay,
            webhook_timeouts=webhook_timeouts,
            private_webhooks=private_webhooks,
            cancelled_webhooks=cancelled_webhooks,
        )
        self._platform = PlatformState(settings, Accounts(Account(key, user_id)))
        self._host = host
        self._port = port
        self._public_url = _check_public_url(public_url)
        self._certificate = (certfile, keyfile)
        self._server = None
        self._gates: WeakSet[Gate] = WeakSet()

    def start(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        public_url: str | None = None,
    ) -> Self:
        """Start to listen.

        Args:
            host: The address to listen on. Defaults to that of the constructor.
            port: The port to listen on. Defaults to that of the constructor.
            public_url: The origin at which clients reach the emulator. Defaults to that of the
                constructor.

        Raises:
            OSError: The emulator cannot listen on this address.
            RuntimeError: The emulator has been started before.
        """
        if self._server is not None:
            raise RuntimeError("cannot start an emulator twice: create another one")
        self._host = self._host if host is None else host
        self._port = self._port if port is None else port
        self._public_url = _check_public_url(public_url) or self._public_url
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
        """Close all connections, cancel all runs, and end the thread."""
        for gate in self._gates:
            gate.open()
        if self._server is not None:
            self._close_cassette()
            self._server.stop()
            self._platform.threads.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await anyio.to_thread.run_sync(self.start)

    async def __aexit__(self, *exc_info: object) -> None:
        with anyio.CancelScope(shield=True):  # stopping takes a limited time
            await anyio.to_thread.run_sync(self.stop)

    @property
    def url(self) -> str:
        """The origin of the emulator. Its hosts are at the paths ``/run``, ``/queue`` and so on."""
        if self._public_url is not None:
            return self._public_url
        scheme = "http" if self._certificate[0] is None else "https"
        host = _LOOPBACK.get(self._host, self._host)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def hosts(self) -> Hosts:
        """The base URLs, for a client's ``hosts=``."""
        return Hosts.at(self.url)

    @property
    def proxy_url(self) -> str:
        """The URL of a server proxy, for the ``proxyUrl`` of the official JavaScript client."""
        return f"{self.url}{PROXY_PATH}"

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables with which clients in another process use the emulator."""
        return {"FAL_KEY": self.key, "FAL_ASYNC_BASE_URL": self.url}

    def sign(
        self,
        payload: object = None,
        *,
        request_id: str | None = None,
        error: str | None = None,
        user_id: str | None = None,
        age: float = 0.0,
        tampered: bool = False,
    ) -> SignedWebhook:
        """Make a signed request to a webhook, for unit tests of its receiver.

        The signature is valid for the keys at ``{fal.hosts.rest}/.well-known/jwks.json``. The
        emulator need not be started to sign.

        Args:
            payload: The output of the job, or the error body if there is an `error`. Bytes are sent
                as the whole body, as they are.
            request_id: The request id. ``None`` generates one.
            error: The error text of a failed job, such as ``"Invalid status code: 422"``. ``None``
                for a job that has succeeded.
            user_id: The id of another account, whose webhooks are signed by the same keys.
                Defaults to that of this account.
            age: The time since the request was signed, in seconds. Negative if the clock of the
                receiver is slow.
            tampered: Whether a byte of the body was changed after the body had been signed.

        Raises:
            ImportError: The extra ``webhooks`` is not installed.

        Example:
            >>> with Emulator() as fal:
            ...     signed = fal.sign({"text": "hello"}, request_id="764cabcf")
            >>> sorted(signed.headers)[-1]
            'X-Fal-Webhook-User-Id'
            >>> import json
            >>> json.loads(signed.body)["payload"]
            {'text': 'hello'}
        """
        request_id = request_id or str(uuid.uuid4())
        if isinstance(payload, bytes):
            body = payload
        elif error is None:
            body = encoding.encode_result(request_id, request_id, payload)
        else:
            body = encoding.encode_error(request_id, request_id, error, payload)
        signed = self._platform.signer.sign(
            body,
            request_id=request_id,
            user_id=user_id or self.user_id,
            timestamp=int(time.time() - age),
        )
        if not tampered:
            return signed
        return dataclasses.replace(signed, body=body[:-1] + bytes([(body or b"?")[-1] ^ 1]))

    def fail(self, endpoint_id: str | None, *faults: Fault) -> None:
        """Schedule faults for an endpoint.

        Each request is affected by the first fault that matches it and is not used up.

        Args:
            endpoint_id: The endpoint id. ``None`` for all endpoints.
            faults: The faults.
        """
        for fault in faults:
            self._platform.faults.add(endpoint_id and str(parse_id(endpoint_id)), fault)

    def configure(self, **settings: Any) -> None:
        """Change settings, also while the emulator runs.

        Args:
            settings: New values of parameters of the constructor. Those that take effect when the
                emulator starts cannot be changed: `host`, `port`, `key`, `user_id`, `clock`,
                `compression`, `certfile` and `keyfile`.

        Raises:
            InvalidRequestError: There is no such setting, or it cannot be changed.

        Example:
            >>> with Emulator() as fal:
            ...     fal.configure(concurrency=2)
        """
        names = [each.name for each in dataclasses.fields(Settings)]
        names = [name for name in names if name not in {"clock", "compression"}]
        if unknown := sorted(settings.keys() - set(names)):
            raise InvalidRequestError(
                f"a setting must be one of {', '.join(names)}, got {', '.join(unknown)}"
            )
        if "allow_origins" in settings:
            settings["allow_origins"] = frozenset(settings["allow_origins"])
        dataclasses.replace(self._platform.settings, **settings)  # validates
        for name, value in settings.items():
            setattr(self._platform.settings, name, value)

    @contextmanager
    def isolated(self) -> Generator[Self]:
        """Undo at the end of a block what it changes: endpoints, settings, keys, and all state.

        At the end, the gates of the emulator are opened, and `reset` is called. Tests that share an
        emulator use it, so that each finds the same one.

        Example:
            >>> with Emulator() as fal:
            ...     with fal.isolated():
            ...         fal.register("acme/app", lambda arguments: arguments)
            ...         fal.configure(concurrency=1)
            ...     fal.counters("acme/app")
            Traceback (most recent call last):
                ...
            KeyError: 'acme/app'
        """
        platform = self._platform
        settings = dataclasses.asdict(platform.settings)
        endpoints, restore_accounts = platform.registry.copy(), platform.accounts.save()
        prices = dict(platform.prices)
        try:
            yield self
        finally:
            self._close_cassette()
            for gate in self._gates:
                gate.open()
            if self._server is None:
                platform.clear()
                platform.registry.restore(endpoints)
            else:
                self._server.call(partial(platform.restore, endpoints))
            restore_accounts()
            platform.prices = prices
            for name, value in settings.items():
                setattr(platform.settings, name, value)

    def gate(self) -> Gate:
        """Create a closed gate, for runners and faults. It opens when the emulator stops."""
        gate = Gate()
        self._gates.add(gate)
        return gate

    def expire(self, request_id: str) -> None:
        """Remove a job, as if its retention time had passed."""
        self._platform.jobs.remove(request_id)

    def reset(self) -> None:
        """Cancel all jobs; remove jobs, faults, requests, counters and files; unlock the account.

        Endpoints stay registered, and the latest files are still served to clients that have their
        URLs. Direct runs and open sessions are disconnected. A blocking
        function cannot be cancelled: it continues in its thread, can read `Job.cancelled`, and
        holds no slot.

        Raises:
            RuntimeError: An async runner called this, and would wait for itself.
        """
        if self._server is None:
            self._platform.clear()
        else:
            self._server.call(self._platform.reset)


def _check_public_url(url: str | None) -> str | None:
    """Return a URL without a trailing slash, and check it as `Hosts` does."""
    return None if url is None else Hosts.at(url).run.removesuffix("/run")
