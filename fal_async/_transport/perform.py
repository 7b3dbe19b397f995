"""Performing operations: the one place where authorization, gates, retries and errors meet."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import anyio

from fal_async._protocol.operations import Credential, Lane, Operation
from fal_async._protocol.origins import BACKUPS, Origins, is_cdn, origin_of
from fal_async._protocol.replies import Reply
from fal_async._protocol.retry import Breakdown, pause_before_retry
from fal_async._transport.call_state import CallState, call_state
from fal_async._transport.cdn_tokens import CdnTokens
from fal_async._transport.exchange import Broken, OpenReply
from fal_async._transport.threads import decode
from fal_async.errors import (
    ConnectionFailedError,
    InvalidRequestError,
    SubmitOutcomeUnknownError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async._config import Hosts, RetryPolicy
    from fal_async._secret import Secret
    from fal_async._transport.line import Line

__all__ = ["Performer"]

T = TypeVar("T")
_log = logging.getLogger("fal_async")

#: How long connecting may take where a backup host stands by, in seconds.
CONNECT_WITH_BACKUP: Final = 5.0
_WITH_BACKUP: Final = tuple(f"{origin}/" for origin in BACKUPS)
#: The longest silence on a status stream, in seconds: three of the platform's keep-alive comments.
WATCH_SILENCE: Final = 45.0


class Authority(Protocol):
    """Where the value of the Authorization header comes from."""

    @property
    def renewable(self) -> bool:
        """Whether asking again may give another value."""
        ...

    async def authorization(self) -> Secret:
        """The value to send now."""
        ...

    def invalidate(self, value: Secret) -> None:
        """Tell that the platform has refused a value."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Performer:
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
    authority: Authority
    hosts: Hosts
    policy: RetryPolicy
    timeout: float | None
    cdn_tokens: CdnTokens = field(init=False, repr=False)
    _origins: Origins = field(init=False, repr=False)

    def __post_init__(self) -> None:
        origins = Origins(self.hosts.run, self.hosts.queue, self.hosts.rest)
        object.__setattr__(self, "_origins", origins)
        shelves = self.line.token_shelves
        tokens = CdnTokens(self.hosts, self.authority, shelves, self.perform)
        object.__setattr__(self, "cdn_tokens", tokens)

    async def perform(
        self,
        operation: Operation[T],
        *,
        abandoned: Callable[[Reply], Awaitable[None]] | None = None,
    ) -> T:
        """Perform an operation, repeating it as it allows, and read its reply.

        Args:
            operation: What to do.
            abandoned: For calls whose response must not be lost: called with it, in the background,
                when the caller was cancelled while it was on its way.

        Raises:
            FalClientHTTPError: The platform answered with an error.
            TransportError: There was no answer.
            InvalidReplyError: The answer cannot be read.
        """
        state = call_state()
        gates = self.line.gates.get()

        async def exchange() -> Reply:
            try:
                opened = await self._start(operation, state)
                return await opened.read(limit=operation.max_body)
            finally:
                gates.leave(operation.lane)

        async def once() -> Reply:
            await gates.enter(operation.lane, state)
            if abandoned is None:
                return await exchange()
            # Only the exchange goes on without its caller: a slot is waited for by callers alone.
            return await self.line.cancels.get().hear_out(exchange, abandoned)

        state.begin(operation)
        with state:
            reply = await self._repeat(operation, once, state)
            # What must not be lost is not left to a thread, which a cancellation would abandon.
            size = len(reply.body) if abandoned is None else 0
            return await decode(partial(operation.parse, reply), size)

    async def open(self, operation: Operation[None]) -> OpenReply:
        """Perform an operation up to the head of a successful reply, which the caller closes.

        The operation's place in its lane is the caller's to take and give back.

        Raises:
            FalClientHTTPError: The platform answered with an error.
            TransportError: There was no answer.
        """
        opened: OpenReply | None = None
        state = call_state()

        async def once() -> Reply:
            nonlocal opened
            opened = await self._start(operation, state)
            if opened.ok:
                return opened.head
            return await opened.read(limit=operation.max_body)

        state.begin(operation)
        with state:
            operation.parse(await self._repeat(operation, once, state))
        assert opened is not None  # noqa: S101 -- `parse` raises for every reply but those of success
        return opened

    async def _repeat(
        self, operation: Operation[T], once: Callable[[], Awaitable[Reply]], state: CallState
    ) -> Reply:
        """Try until there is a reply that stands, or no further try is allowed."""
        began = monotonic()
        attempt = 1
        previous: Reply | None = None
        while True:
            cause: BaseException | None = None
            outcome: Reply | Breakdown
            try:
                outcome = await once()
                state.receive(outcome)
            except Broken as error:
                outcome, cause = error.breakdown, error.__cause__
            pause = pause_before_retry(
                outcome,
                operation.retry,
                self.policy,
                attempt=attempt,
                elapsed=monotonic() - began,
                random=random.random,
                previous=previous,
            )
            if pause is None:
                if isinstance(outcome, Breakdown):
                    raise _failure(operation, outcome) from cause
                return replace(outcome, retries=attempt - 1) if attempt > 1 else outcome
            _log_retry(operation, outcome, attempt, pause)
            await anyio.sleep(pause)
            attempt += 1
            previous = outcome if isinstance(outcome, Reply) else None

    async def _start(self, operation: Operation[T], state: CallState) -> OpenReply:
        """One attempt; a credential that can be renewed gets a second chance."""
        self.line.check_open(operation)
        authority = self._authority_for(operation.credential)
        if authority is None:
            return await self._reach(operation, None, state)
        authorization = await authority.authorization()
        opened = await self._reach(operation, authorization, state)
        if opened.status_code != 401 or not authority.renewable:
            return opened
        if operation.starts_job and opened.head.answered_by_app:
            return opened  # the app's own refusal: it has run, and would run again
        await opened.aclose()
        authority.invalidate(authorization)
        return await self._reach(operation, await authority.authorization(), state)

    def _authority_for(self, credential: Credential) -> Authority | None:
        match credential:
            case Credential.KEY:
                return self.authority
            case Credential.CDN_TOKEN:
                return self.cdn_tokens
            case Credential.NONE:
                return None

    async def _reach(
        self, operation: Operation[T], authorization: Secret | None, state: CallState
    ) -> OpenReply:
        """Send to the host, or to its backup when it cannot be reached."""
        routes = self.line.routes
        own = operation.request.url
        url = routes.place(own, monotonic())
        try:
            return await self._send(operation, url, authorization, state)
        except Broken as error:
            backup = routes.divert(url, monotonic()) if error.unreachable else None
            if backup is None:
                raise error if url == own else _about_backup(error, own) from error.__cause__
            failure = error
        _log.info("%s cannot be reached, so its backup host is used", origin_of(url))
        try:
            return await self._send(operation, backup, authorization, state)
        except Broken as error:
            if not error.unreachable:
                raise
            # Users know the host that they called, and the backup may be down for the same reason.
            reason = f"{failure.breakdown.reason} (nor can its backup host be reached)"
            breakdown = replace(failure.breakdown, reason=reason)
            raise Broken(breakdown, unreachable=True) from failure.__cause__

    async def _send(
        self, operation: Operation[T], url: str, authorization: Secret | None, state: CallState
    ) -> OpenReply:
        if not self._may_go_to(url, operation.credential):
            raise InvalidRequestError(f"{origin_of(url)} is not the platform: the key stays here")
        return await self.line.start(
            operation.request,
            url,
            authorization=authorization,
            timeout=self._timeouts(operation.lane, url),
            transmission=state.transmit(),
        )

    def _may_go_to(self, url: str, credential: Credential) -> bool:
        match credential:
            case Credential.KEY:
                return self._origins.cover(url)
            case Credential.CDN_TOKEN:
                return is_cdn(url, self.hosts)
            case Credential.NONE:
                return True

    def _timeouts(self, lane: Lane, url: str) -> dict[str, float | None]:
        connect = silence = self.timeout
        if lane is Lane.HELD:
            silence = None
        elif lane is Lane.WATCH:
            silence = WATCH_SILENCE
        if url.startswith(_WITH_BACKUP):
            connect = min(connect or CONNECT_WITH_BACKUP, CONNECT_WITH_BACKUP)
        return {"connect": connect, "read": silence, "write": self.timeout, "pool": None}


def _about_backup(error: Broken, url: str) -> Broken:
    """A failure at a backup host, in words that name the host which it stands in for."""
    reason = f"the backup host of {origin_of(url)} is in use, and {error.breakdown.reason}"
    return Broken(replace(error.breakdown, reason=reason), unreachable=error.unreachable)


def _log_retry(
    operation: Operation[T], outcome: Reply | Breakdown, attempt: int, pause: float
) -> None:
    _log.info(
        "%s of %s is tried again in %.2f s: attempt %d came to %s",
        operation.name,
        operation.application,
        pause,
        attempt,
        outcome.reason if isinstance(outcome, Breakdown) else outcome.status_code,
    )


def _failure(operation: Operation[T], breakdown: Breakdown) -> TransportError:
    if not breakdown.sent:
        return ConnectionFailedError(
            f"{operation.name} of {operation.application!r} could not be sent: {breakdown.reason}",
            request_id=operation.request_id,
        )
    if operation.starts_job:
        return SubmitOutcomeUnknownError(
            operation.application, breakdown.reason, request_id=breakdown.request_id
        )
    return TransportError(
        f"{operation.name} of {operation.application!r} had no reply: {breakdown.reason}",
        request_id=operation.request_id,
    )
