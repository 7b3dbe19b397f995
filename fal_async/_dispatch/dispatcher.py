"""`Dispatcher`: limits, authorization, failover, retries, parsing."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast
from urllib.parse import urlencode

import anyio

from fal_async._auth.cdn_tokens import CdnTokens, TokenShelves
from fal_async._core.secrets import Secret
from fal_async._dispatch.call_state import CallState, call_state
from fal_async._dispatch.cancels import Cancels
from fal_async._dispatch.failover import Failover
from fal_async._dispatch.limits import LaneLimits
from fal_async._http.response import ExchangeFailed, StreamedResponse, _broken
from fal_async._http.transmission import Transmission
from fal_async._net.background import spawn
from fal_async._net.errors import ExchangeError, InvalidURL
from fal_async._net.event_loops import PerLoop
from fal_async._net.tasks import shielded_cleanup
from fal_async._net.threads import decode
from fal_async._protocol.operation import MAX_RESPONSE, Credential, Lane, Operation, Request
from fal_async._protocol.origins import BACKUPS, TrustedOrigins, is_cdn, origin_of
from fal_async._protocol.response import Response
from fal_async._protocol.retry import NetworkFailure, retry_delay
from fal_async._version import USER_AGENT
from fal_async._websocket.registry import WebSocketRegistry
from fal_async.errors import (
    ClientClosedError,
    ConnectionFailedError,
    InvalidRequestError,
    SubmitOutcomeUnknownError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from fal_async._config import Hosts, Limits, RetryPolicy
    from fal_async._http.connection import Timeouts
    from fal_async._http.response import Transport
    from fal_async._protocol.operation import Content

__all__ = ["Dispatcher", "start"]

T = TypeVar("T")
_log = logging.getLogger("fal_async")


#: Methods whose requests have a body, if an empty one.
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class _RequestBody:
    """A body that is read while it is sent."""

    def __init__(self, content: Content) -> None:
        self._chunks = aiter(content)
        self.failure: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


async def start(
    carrier: Transport,
    request: Request,
    url: str,
    *,
    authorization: Secret | None,
    timeout: Timeouts,
    transmission: Transmission,
) -> StreamedResponse:
    """Send a request and wait for the head of its response; raises `ExchangeFailed`."""
    headers: dict[str, str | Secret] = {"user-agent": USER_AGENT, **request.headers}
    if authorization is not None:
        headers.setdefault("authorization", authorization)
    content = request.content
    body = content if isinstance(content, bytes) else _RequestBody(content)
    if not isinstance(content, bytes):
        headers["content-length"] = str(content.size)
    elif content or request.method in _WITH_BODY:
        headers["content-length"] = str(len(content))
    try:
        return await carrier.send(
            request.method, url, headers, body, timeout, transmission, query=request.signature
        )
    except (ExchangeError, OSError) as error:
        if isinstance(body, _RequestBody) and body.failure is error:
            raise  # the exchange is well, but not what was to be sent
        raise _broken(error, sent=transmission.sent) from error
    except InvalidURL as error:
        raise InvalidRequestError(f"not a URL that can be called: {error}") from error


#: The bound of connecting, writing and silence when a login is renewed, in seconds.
FORM_TIMEOUT: Final = 10.0


class _Form:
    """The fields of a form as the body of a request, some of them secret."""

    def __init__(self, fields: Mapping[str, str | Secret]) -> None:
        revealed = {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in fields.items()
        }
        self._encoded = memoryview(urlencode(revealed).encode())

    @property
    def size(self) -> int:
        return len(self._encoded)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield cast("bytes", self._encoded)  # as good as bytes to send, but its repr shows nothing


class Line:
    """A transport, who waits for it, and which hosts are down.

    Attributes:
        limits: How much goes on at once.
        routes: Where requests go when a host is down.
        gates: The places of each lane, per event loop.
        cancels: The jobs to cancel, per event loop.
        sockets: The WebSockets, which do not use the transport.
        token_shelves: The CDN tokens of the accounts, per event loop.
    """

    def __init__(self, carrier: Transport, limits: Limits) -> None:
        self.limits = limits
        self.routes: Failover = Failover()
        self.gates: PerLoop[LaneLimits] = PerLoop(lambda: LaneLimits(limits))
        self.cancels: PerLoop[Cancels] = PerLoop(lambda: Cancels(limits.control))
        self.sockets: WebSocketRegistry = WebSocketRegistry()
        self.token_shelves: PerLoop[TokenShelves] = PerLoop(TokenShelves)
        self._carrier = carrier
        self._closing = False
        self._closed = False

    def check_open(self, operation: Operation[Any]) -> None:
        """Raise an error if an operation cannot be begun.

        A closing client still cancels jobs, and fetches the outputs of those that have ended.

        Raises:
            ClientClosedError: The client is closed, or closing.
        """
        finishes = operation.lane is Lane.CANCEL or operation.stage == "result"
        if self._closed or (self._closing and not finishes):
            raise ClientClosedError("the client is closed", request_id=operation.request_id)

    async def start(
        self,
        request: Request,
        url: str,
        *,
        authorization: Secret | None,
        timeout: Mapping[str, float | None],
        transmission: Transmission,
    ) -> StreamedResponse:
        """Send a request and wait for the head of its response; raises `ExchangeFailed`."""
        if self._closed:
            raise ClientClosedError("the client is closed")
        return await start(
            self._carrier,
            request,
            url,
            authorization=authorization,
            timeout=timeout,
            transmission=transmission,
        )

    async def post_form(
        self, url: str, fields: Mapping[str, str | Secret]
    ) -> tuple[int, memoryview]:
        """Send a form, without the key, to where logins are renewed.

        Returns:
            The status and the body of the answer.

        Raises:
            TransportError: There was no answer.
        """
        headers = {
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
        }
        request = Request("POST", url, headers, _Form(fields))
        timeout: dict[str, float | None] = dict.fromkeys(("connect", "read", "write"), FORM_TIMEOUT)
        try:
            opened = await self.start(
                request, url, authorization=None, timeout=timeout, transmission=Transmission()
            )
            response = await opened.read(limit=MAX_RESPONSE)
        except ExchangeFailed as error:
            raise TransportError(f"the login could not be renewed: {error}") from error.__cause__
        return response.status_code, memoryview(response.body)

    async def prepare(self) -> None:
        """Do what the first exchange would have to do otherwise.

        Raises:
            ConnectionFailedError: The trusted certificates cannot be read.
        """
        try:
            await self._carrier.prepare()
        except ExchangeError as error:
            raise ConnectionFailedError(str(error)) from error

    async def aclose(self) -> None:
        """Refuse calls, cancel the jobs of those who wait, close the sockets and the transport.

        It is done in the background, and goes on when the caller is cancelled.
        """
        self._closing = True
        cancels = self.cancels.get()
        if cancels.idle and cancels.closing is None:
            await self._close()
            return
        if cancels.closing is None:

            async def finish() -> None:
                try:
                    await cancels.finish()
                finally:
                    with shielded_cleanup():  # a transport that is not ours may take its time
                        await self._close()

            cancels.closing = spawn(finish, grace=cancels.patience)
        with anyio.CancelScope(shield=True):
            await cancels.closing.wait()

    async def _close(self) -> None:
        self._closed = True
        try:
            await self.sockets.aclose()
        finally:
            await self._carrier.aclose()


#: How long connecting may take where a backup host stands by, in seconds.
CONNECT_WITH_BACKUP: Final = 5.0


_WITH_BACKUP: Final = tuple(f"{origin}/" for origin in BACKUPS)


#: The longest silence on a status stream, in seconds: three of the platform's keep-alive comments.
STATUS_STREAM_READ_TIMEOUT: Final = 45.0


class CredentialSource(Protocol):
    """Where the value of the Authorization header comes from."""

    @property
    def refreshable(self) -> bool:
        """Whether asking again may give another value."""
        ...

    async def authorization(self) -> Secret:
        """The value to send now."""
        ...

    def invalidate(self, value: Secret) -> None:
        """Tell that the platform has refused a value."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """Performs operations for one client.

    Attributes:
        line: The transport, shared.
        authority: The source of the Authorization header.
        hosts: The base URLs; the key goes to their origins and to the platform's backup hosts
            alone.
        policy: How often is tried again.
        timeout: The bound of connecting, of writing, and of silence in calls that are over soon, in
            seconds; ``None`` disables it.
        cdn_tokens: The tokens that the CDN lets in.
    """

    line: Line
    credentials: CredentialSource
    hosts: Hosts
    policy: RetryPolicy
    timeout: float | None
    cdn_tokens: CdnTokens = field(init=False, repr=False)
    _origins: TrustedOrigins = field(init=False, repr=False)

    def __post_init__(self) -> None:
        origins = TrustedOrigins(self.hosts.run, self.hosts.queue, self.hosts.rest)
        object.__setattr__(self, "_origins", origins)
        shelves = self.line.token_shelves
        tokens = CdnTokens(self.hosts, self.credentials, shelves, self.execute)
        object.__setattr__(self, "cdn_tokens", tokens)

    async def execute(
        self,
        operation: Operation[T],
        *,
        on_abandoned: Callable[[Response], Awaitable[None]] | None = None,
    ) -> T:
        """Perform an operation, repeating it as it allows, and read its response.

        Args:
            operation: What to do.
            on_abandoned: Called with the response, in the background, when the caller was
                cancelled before it was received; ``None`` cancels the request with its caller.

        Raises:
            FalClientHTTPError: The platform answered with an error.
            TransportError: There was no answer.
            InvalidResponseError: The answer cannot be read.
        """
        state = call_state()
        gates = self.line.gates.get()

        async def exchange() -> Response:
            try:
                opened = await self._attempt(operation, state)
                return await opened.read(limit=operation.max_body)
            finally:
                gates.release(operation.lane)

        async def once() -> Response:
            await gates.acquire(operation.lane, state)
            if on_abandoned is None:
                return await exchange()
            # Only the exchange goes on without its caller: a slot is waited for by callers alone.
            return await self.line.cancels.get().hear_out(exchange, on_abandoned)

        state.begin(operation)
        with state:
            response = await self._repeat(operation, once, state)
            # What must not be lost is not left to a thread, which a cancellation would abandon.
            size = len(response.body) if on_abandoned is None else 0
            return await decode(partial(operation.parse, response), size)

    async def stream(self, operation: Operation[None]) -> StreamedResponse:
        """Perform an operation up to the head of a successful response, which the caller closes.

        The operation's place in its lane is the caller's to take and give back.

        Raises:
            FalClientHTTPError: The platform answered with an error.
            TransportError: There was no answer.
        """
        opened: StreamedResponse | None = None
        state = call_state()

        async def once() -> Response:
            nonlocal opened
            opened = await self._attempt(operation, state)
            if opened.ok:
                return opened.head
            return await opened.read(limit=operation.max_body)

        state.begin(operation)
        with state:
            operation.parse(await self._repeat(operation, once, state))
        assert opened is not None  # noqa: S101 -- `parse` raises for every reply but those of success
        return opened

    async def _repeat(
        self, operation: Operation[T], once: Callable[[], Awaitable[Response]], state: CallState
    ) -> Response:
        """Try until there is a response that stands, or no further try is allowed."""
        began = monotonic()
        attempt = 1
        previous: Response | None = None
        while True:
            cause: BaseException | None = None
            outcome: Response | NetworkFailure
            try:
                outcome = await once()
                state.receive(outcome)
            except ExchangeFailed as error:
                outcome, cause = error.breakdown, error.__cause__
            pause = retry_delay(
                outcome,
                operation.retry,
                self.policy,
                attempt=attempt,
                elapsed=monotonic() - began,
                random=random.random,
                previous=previous,
            )
            if pause is None:
                if isinstance(outcome, NetworkFailure):
                    raise _transport_error(operation, outcome) from cause
                return replace(outcome, retries=attempt - 1) if attempt > 1 else outcome
            _log_retry(operation, outcome, attempt, pause)
            await anyio.sleep(pause)
            attempt += 1
            previous = outcome if isinstance(outcome, Response) else None

    async def _attempt(self, operation: Operation[T], state: CallState) -> StreamedResponse:
        """One attempt; a credential that can be renewed gets a second chance."""
        self.line.check_open(operation)
        credentials = self._authority_for(operation.credential)
        if credentials is None:
            return await self._send_with_failover(operation, None, state)
        authorization = await credentials.authorization()
        opened = await self._send_with_failover(operation, authorization, state)
        if opened.status_code != 401 or not credentials.refreshable:
            return opened
        if operation.is_billable and opened.head.answered_by_app:
            return opened  # the app's own refusal: it has run, and would run again
        await opened.aclose()
        credentials.invalidate(authorization)
        return await self._send_with_failover(operation, await credentials.authorization(), state)

    def _authority_for(self, credential: Credential) -> CredentialSource | None:
        match credential:
            case Credential.KEY:
                return self.credentials
            case Credential.CDN_TOKEN:
                return self.cdn_tokens
            case Credential.NONE:
                return None

    async def _send_with_failover(
        self, operation: Operation[T], authorization: Secret | None, state: CallState
    ) -> StreamedResponse:
        """Send to the host, or to its backup when it cannot be reached."""
        routes = self.line.routes
        own = operation.request.url
        url = routes.resolve(own, monotonic())
        try:
            return await self._send(operation, url, authorization, state)
        except ExchangeFailed as error:
            backup = routes.mark_down(url, monotonic()) if error.unreachable else None
            if backup is None:
                raise error if url == own else _about_backup(error, own) from error.__cause__
            failure = error
        _log.info("%s cannot be reached, so its backup host is used", origin_of(url))
        try:
            return await self._send(operation, backup, authorization, state)
        except ExchangeFailed as error:
            if not error.unreachable:
                raise
            # Users know the host that they called, and the backup may be down for the same reason.
            reason = f"{failure.breakdown.reason} (nor can its backup host be reached)"
            breakdown = replace(failure.breakdown, reason=reason)
            raise ExchangeFailed(breakdown, unreachable=True) from failure.__cause__

    async def _send(
        self, operation: Operation[T], url: str, authorization: Secret | None, state: CallState
    ) -> StreamedResponse:
        if not self._is_trusted(url, operation.credential):
            raise InvalidRequestError(f"{origin_of(url)} is not the platform: the key stays here")
        return await self.line.start(
            operation.request,
            url,
            authorization=authorization,
            timeout=self._timeouts(operation.lane, url),
            transmission=state.transmit(),
        )

    def _is_trusted(self, url: str, credential: Credential) -> bool:
        match credential:
            case Credential.KEY:
                return self._origins.contains(url)
            case Credential.CDN_TOKEN:
                return is_cdn(url, self.hosts)
            case Credential.NONE:
                return True

    def _timeouts(self, lane: Lane, url: str) -> dict[str, float | None]:
        connect = silence = self.timeout
        if lane is Lane.HELD:
            silence = None
        elif lane is Lane.WATCH:
            silence = STATUS_STREAM_READ_TIMEOUT
        if url.startswith(_WITH_BACKUP):
            connect = min(connect or CONNECT_WITH_BACKUP, CONNECT_WITH_BACKUP)
        return {"connect": connect, "read": silence, "write": self.timeout, "pool": None}


def _about_backup(error: ExchangeFailed, url: str) -> ExchangeFailed:
    """A failure at a backup host, in words that name the host which it stands in for."""
    reason = f"the backup host of {origin_of(url)} is in use, and {error.breakdown.reason}"
    return ExchangeFailed(replace(error.breakdown, reason=reason), unreachable=error.unreachable)


def _log_retry(
    operation: Operation[T], outcome: Response | NetworkFailure, attempt: int, pause: float
) -> None:
    _log.info(
        "%s of %s is tried again in %.2f s: attempt %d came to %s",
        operation.name,
        operation.application,
        pause,
        attempt,
        outcome.reason if isinstance(outcome, NetworkFailure) else outcome.status_code,
    )


def _transport_error(operation: Operation[T], breakdown: NetworkFailure) -> TransportError:
    if not breakdown.sent:
        return ConnectionFailedError(
            f"{operation.name} of {operation.application!r} could not be sent: {breakdown.reason}",
            request_id=operation.request_id,
        )
    if operation.is_billable:
        return SubmitOutcomeUnknownError(
            operation.application, breakdown.reason, request_id=breakdown.request_id
        )
    return TransportError(
        f"{operation.name} of {operation.application!r} had no response: {breakdown.reason}",
        request_id=operation.request_id,
    )
