"""`Dispatcher`: limits, authorization, failover, retries, parsing."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import anyio

from fal_async._auth.cdn_tokens import CdnTokens
from fal_async._core.hooks import scoped_hooks
from fal_async._core.secrets import conceal
from fal_async._dispatch.call_observer import NO_OBSERVER
from fal_async._dispatch.call_state import CallScope, CallState, current_call
from fal_async._http.response import ExchangeFailed, StreamedResponse
from fal_async._net.errors import ExchangeError, InvalidURL
from fal_async._net.threads import decode
from fal_async._protocol.operation import Credential, Lane, Operation
from fal_async._protocol.origins import BACKUPS, TrustedOrigins, is_cdn, origin_of
from fal_async._protocol.response import Response
from fal_async._protocol.retry import NetworkFailure, retry_delay
from fal_async._version import USER_AGENT
from fal_async.errors import ClientClosedError, FalClientError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from fal_async._config import Hosts, RetryPolicy
    from fal_async._core.secrets import Secret
    from fal_async._dispatch.call_state import SubmittedJob
    from fal_async._dispatch.resources import SharedResources
    from fal_async._protocol.operation import Content
    from fal_async.hooks import Hook

__all__ = ["Dispatcher"]

T = TypeVar("T")
_log = logging.getLogger("fal_async")

#: The longest time to connect to a host that has a backup host, in seconds.
CONNECT_WITH_BACKUP: Final = 5.0
_WITH_BACKUP: Final = tuple(f"{origin}/" for origin in BACKUPS)
#: The read timeout of a status stream, in seconds: three of the platform's keep-alive comments.
STATUS_STREAM_READ_TIMEOUT: Final = 45.0


class CredentialSource(Protocol):
    """A source of the Authorization header."""

    @property
    def can_refresh(self) -> bool:
        """True if a new value can replace a rejected one."""
        ...

    async def authorization(self) -> Secret:
        """Return the header value to send now."""
        ...

    def invalidate(self, value: Secret) -> None:
        """Discard a header value that the platform rejected."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dispatcher:
    """Executes the operations of one client: limits, authorizes, sends, retries and parses.

    Attributes:
        resources: The transport and the limits, shared with copies of the client.
        credentials: The source of the Authorization header.
        hosts: The base URLs. The key is sent to their origins and to the platform's backup hosts
            only.
        policy: The retry policy.
        timeout: The connect, write and read timeout of short calls, in seconds; ``None`` disables
            it.
        headers: The headers of all requests with the key, besides those of the request.
        user_agent: The value of the User-Agent header.
        hooks: Receive the events of calls.
        cdn_tokens: The source of the Authorization header for the CDN.
    """

    resources: SharedResources
    credentials: CredentialSource
    hosts: Hosts
    policy: RetryPolicy
    timeout: float | None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    user_agent: str = USER_AGENT
    hooks: tuple[Hook, ...] = ()
    cdn_tokens: CdnTokens = field(init=False, repr=False)
    _origins: TrustedOrigins = field(init=False, repr=False)

    def __post_init__(self) -> None:
        hosts = self.hosts
        origins = TrustedOrigins(hosts.run, hosts.queue, hosts.rest, hosts.platform)
        object.__setattr__(self, "_origins", origins)
        cache = self.resources.cdn_tokens
        tokens = CdnTokens(self.hosts, self.credentials, cache, self.execute)
        object.__setattr__(self, "cdn_tokens", tokens)

    def call(
        self,
        name: str,
        application: str = "",
        *,
        timeout: float | None = None,
        handle: SubmittedJob | None = None,
    ) -> CallScope:
        """Begin a call in a block, or a part of the current call.

        Args:
            name: The name of the method, for hooks.
            application: The endpoint id; empty without one.
            timeout: The timeout of the block, in seconds; ``None`` disables it.
            handle: The job that the call is made for; ``None`` without one.
        """
        current = current_call.get()
        state = current or self.begin_call(name, application, handle)
        return CallScope(state, timeout, is_part=current is not None)

    def begin_call(
        self, name: str, application: str = "", handle: SubmittedJob | None = None
    ) -> CallState:
        """Begin a call whose end the caller reports to its observer; see `call`."""
        hooks = self.hooks + scoped_hooks.get()
        logs = _log.isEnabledFor(logging.DEBUG)
        request_id = None if handle is None else handle.request_id
        observer = NO_OBSERVER
        if hooks or logs:
            # Late, since the events take time to import.
            from fal_async._dispatch.hook_observer import HookObserver

            context = None if handle is None else handle.traceparent
            observer = HookObserver(hooks, name, application, request_id, context, logs=logs)
        if handle is None:
            return CallState(observer=observer)
        return CallState("wait", started=None, request_id=request_id, observer=observer)

    async def execute(
        self,
        operation: Operation[T],
        *,
        on_abandoned: Callable[[Response], Awaitable[None]] | None = None,
        receive: Callable[[StreamedResponse], Awaitable[Response]] | None = None,
    ) -> T:
        """Execute an operation, with retries, and parse its response.

        Args:
            operation: The operation.
            on_abandoned: Called with the response, in the background, when the caller was cancelled
                before the response had arrived; ``None`` cancels the request with its caller.
            receive: Receives the response of each attempt; ``None`` reads it completely.

        Raises:
            FalClientHTTPError: The platform responded with an error.
            TransportError: There was no response.
            InvalidResponseError: The response cannot be parsed.
        """
        state = current_call.get()
        if state is None:
            with self.call(operation.name, operation.application):
                return await self.execute(operation, on_abandoned=on_abandoned, receive=receive)
        slots = self.resources.lanes.get().slots[operation.lane]
        release_slot = slots.release
        if receive is None:
            receive = partial(StreamedResponse.read, limit=operation.max_body)

        async def attempt() -> Response:
            return await receive(await self._attempt(operation, state, release_slot))

        began = monotonic()
        attempts = 0
        previous: Response | None = None
        state.begin(operation)
        try:
            while True:
                attempts += 1
                cause: BaseException | None = None
                outcome: Response | NetworkFailure
                await slots.acquire(state)
                try:
                    if on_abandoned is None:
                        outcome = await receive(await self._attempt(operation, state, release_slot))
                    else:  # the request goes on without its caller, who alone waits for the slot
                        canceller = self.resources.cancellers.get()
                        outcome = await canceller.complete_submit(attempt, on_abandoned)
                    state.receive(outcome)
                    state.observer.receive(operation, outcome)
                except ExchangeFailed as error:
                    outcome, cause = error.failure, error.__cause__
                    state.observer.fail_attempt(operation, outcome)
                delay = retry_delay(
                    outcome,
                    operation.retry,
                    self.policy,
                    attempt=attempts,
                    elapsed=monotonic() - began,
                    random=random.random,
                    previous=previous,
                )
                if delay is None:
                    break
                _log.info(
                    "Retrying %s of %s in %.2f s (attempt %d: %s)",
                    operation.name,
                    operation.application,
                    delay,
                    attempts,
                    outcome.reason if isinstance(outcome, NetworkFailure) else outcome.status_code,
                )
                state.observer.schedule_retry(operation, delay, outcome)
                state.retries += 1
                await anyio.sleep(delay)
                previous = outcome if isinstance(outcome, Response) else None
            if isinstance(outcome, NetworkFailure):
                raise operation.transport_error(outcome) from cause
            response = replace(outcome, retries=state.retries) if state.retries else outcome
            # A response that must not be lost is parsed here: a cancellation abandons threads.
            size = len(response.body) if on_abandoned is None else 0
            return await decode(partial(operation.parse, response), size)
        except FalClientError as error:
            state.describe(error)
            raise

    async def stream(
        self, operation: Operation[None], *, release_slot: Callable[[], None] | None = None
    ) -> StreamedResponse:
        """Execute an operation, with retries, up to the headers of a successful response.

        The response holds its slot until it is closed or freed.

        Args:
            operation: The operation.
            release_slot: Releases the slot that the caller has acquired for the response; called
                when there is no response, too. ``None`` acquires a slot of the operation's lane.

        Raises:
            FalClientHTTPError: The platform responded with an error.
            TransportError: There was no response.
        """
        successful: StreamedResponse | None = None

        async def receive(streamed: StreamedResponse) -> Response:
            nonlocal successful
            if not streamed.ok:
                return await streamed.read(limit=operation.max_body)
            successful = streamed
            return streamed.head

        try:
            await self.execute(operation, receive=receive)
        except BaseException:
            if release_slot is not None:
                release_slot()
            raise
        assert successful is not None  # noqa: S101 -- `parse` raises for all other responses
        if release_slot is not None:
            successful.release_slot = release_slot
        return successful

    async def _attempt(
        self, operation: Operation[Any], state: CallState, release_slot: Callable[[], None]
    ) -> StreamedResponse:
        """Send an authorized request in an acquired slot, and again if a refresh may help."""
        try:
            self.resources.check_open(operation)
            if operation.credential is Credential.NONE:
                response = await self._send(operation, None, state)
            else:
                with_key = operation.credential is Credential.KEY
                credentials = self.credentials if with_key else self.cdn_tokens
                authorization = await credentials.authorization()
                response = await self._send(operation, authorization, state)
                # After a 401 of the app itself, which has run, another request would run it again.
                if (
                    response.status_code == 401
                    and credentials.can_refresh
                    and not (operation.is_billable and response.head.is_from_runner)
                ):
                    await response.aclose()
                    credentials.invalidate(authorization)
                    response = await self._send(operation, await credentials.authorization(), state)
        except BaseException:
            release_slot()
            raise
        response.release_slot = release_slot
        return response

    async def _send(
        self, operation: Operation[Any], authorization: Secret | None, state: CallState
    ) -> StreamedResponse:
        """Send the request to its host, or to the backup host while its host is unreachable."""
        request, resources = operation.request, self.resources
        url = resources.failover.resolve(request.url, monotonic())
        self._check_trusted(url, operation.credential)
        if resources.closed:
            raise ClientClosedError("the client is closed")
        headers, body, authorization = self._encode(operation, authorization, state)
        timeouts = self._timeouts(operation.lane, url)
        transmission = state.start_transmission()
        state.observer.start_attempt(operation, url)
        try:
            response = await resources.transport.send(
                request.method,
                url,
                headers,
                body,
                timeouts,
                transmission,
                authorization,
                request.signature,
            )
        except (ExchangeError, OSError) as error:
            if isinstance(body, _RequestBody) and body.failure is error:
                raise  # the content cannot be read, which no other attempt changes
            failed, cause = ExchangeFailed.from_error(error, sent=transmission.sent), error
        except InvalidURL as error:
            raise InvalidRequestError(f"cannot send a request to {url}: {error}") from error
        else:
            state.observer.start_response(operation, response)
            return response
        if failed.unreachable and resources.failover.mark_down(url, monotonic()):
            _log.info("%s cannot be reached, so its backup host is used", origin_of(url))
            state.observer.fail_attempt(operation, failed.failure)
            try:
                return await self._send(operation, authorization, state)
            except ExchangeFailed as error:
                if not error.unreachable:
                    raise
            # Users know the host that they called, and the backup may be down for the same reason.
            reason = f"{failed} (nor can its backup host be reached)"
            failed.failure = failed.failure._replace(reason=reason)
        elif url != request.url:
            reason = f"the backup host of {origin_of(request.url)} is in use, and {failed}"
            failed.failure = failed.failure._replace(reason=reason)
        raise failed from cause

    def _encode(
        self, operation: Operation[Any], authorization: Secret | None, state: CallState
    ) -> tuple[dict[str, str], bytes | _RequestBody, Secret | None]:
        """Return the headers, the body and the authorization of a request."""
        request = operation.request
        headers = {"user-agent": self.user_agent}
        if operation.credential is Credential.KEY:  # other hosts do not get them
            headers |= self.headers
        if operation.is_billable and state.observer is not NO_OBSERVER:
            headers |= state.observer.trace_headers()
        headers |= request.headers
        if "authorization" in headers:
            authorization = conceal(headers.pop("authorization"))
        content = request.content
        if isinstance(content, bytes):
            return headers, content, authorization
        headers["content-length"] = str(content.size)
        return headers, _RequestBody(content), authorization

    def _check_trusted(self, url: str, credential: Credential) -> None:
        is_trusted = True
        if credential is Credential.KEY:
            is_trusted = self._origins.contains(url)
        elif credential is Credential.CDN_TOKEN:
            is_trusted = is_cdn(url, self.hosts)
        if not is_trusted:
            raise InvalidRequestError(
                f"cannot send the key to {origin_of(url)}: it is not a host of the platform"
            )

    def _timeouts(self, lane: Lane, url: str) -> dict[str, float | None]:
        connect = read = self.timeout
        if lane is Lane.HELD:
            read = None
        elif lane is Lane.WATCH:
            read = STATUS_STREAM_READ_TIMEOUT
        if url.startswith(_WITH_BACKUP):
            connect = min(connect or CONNECT_WITH_BACKUP, CONNECT_WITH_BACKUP)
        return {"connect": connect, "read": read, "write": self.timeout, "pool": None}


class _RequestBody:
    """The chunks of a request body, read from its content while they are sent.

    Attributes:
        failure: The error that reading the content raised; ``None`` if it raised none.
    """

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
