"""Scripted faults, and which request each of them affects."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fal_async.emulator._gate import Gate
from fal_async.emulator._responses import Response, json_response, raw_headers
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async.emulator._recorder import RecordedRequest, Route

__all__ = ["Fault"]

#: Requests of the platform itself, and those that control the emulator. Only faults of just their
#: route affect them.
_UNAFFECTED: Final[frozenset[Route]] = frozenset({"runner", "webhook", "control"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault in the requests to an endpoint. `Emulator.fail` schedules it.

    `route`, `when`, `skip`, `times` and `share` select requests. The other attributes describe the
    fault.

    Attributes:
        route: The kind of request. ``None`` selects all kinds. ``"run"`` and ``"stream"`` include
            requests over a WebSocket. ``"runner"`` is the platform's own request to a runner: it
            makes the platform retry. ``"webhook"`` is an attempt to deliver a webhook.
        when: A predicate of the request. ``None`` selects all requests.
        status: The HTTP status of an error response that replaces the real response.
        headers: The headers of the error response. Without `status`, additional headers of the real
            response, or of the webhook; ``None`` as a value removes a header.
        body: The body of the error response: bytes or text as they are, other values as JSON.
            ``None`` sends ``{"detail": ...}``. With `close`, the close reason.
        transform: A function that transforms the decoded JSON of the real response, or of each
            event of a stream. It transforms a webhook after the webhook has been signed.
        delay: The time in seconds, or a gate, to wait for before the fault is injected. With `cut`,
            the connection stays open for this time after the truncated body. Without other
            attributes, the request is only delayed.
        cut: The number of bytes after which the body is truncated.
        delay_response: The time in seconds, or a gate, to wait for between processing the request
            and sending the response. A job that was submitted runs meanwhile, and its webhook can
            arrive before the response.
        drop: Whether to close the connection without processing the request. A webhook is not sent.
        drop_response: Whether to process the request, and then to close the connection without a
            response. A webhook is sent, and the response of its receiver is ignored.
        duplicate: Whether a webhook is sent twice at the same time.
        raw_bytes: Bytes to send instead of a response, before the connection is closed.
        reset: Whether the connection is reset (RST) instead of closed. Without other attributes,
            the request is not processed, as with `drop`.
        close: The code with which a WebSocket is closed.
        message: A text or binary message to send over a WebSocket, before the rest of the fault;
            for example, bytes that are not valid msgpack.
        stall: Whether a WebSocket stops reading and sending, pongs included, but stays connected.
        after: The number of messages sent over a WebSocket before the fault is injected. It applies
            to `close`, `message`, `stall`, `raw_bytes` and `cut`, which counts bytes from there on.
            For a request over a WebSocket, it counts from the start of that request.
        times: The number of requests that fail. ``None`` for all requests. Not used with `share`.
        skip: The number of selected requests that succeed first.
        share: The share of the selected requests that fail, at random, from 0 to 1. ``None`` lets
            the first `times` requests fail.
        seed: The seed of the random choice.

    Raises:
        InvalidRequestError: `share` is not from 0 to 1.

    Example:
        >>> from fal_async.emulator import Emulator
        >>> with Emulator() as fal:
        ...     fal.register("acme/app", lambda arguments: arguments)
        ...     fal.fail("acme/app", Fault(route="status", status=503, times=2))
        ...     fal.fail("acme/app", Fault(route="submit", drop_response=True))
    """

    route: Route | None = None
    when: Callable[[RecordedRequest], bool] | None = None
    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    body: Any = None
    transform: Callable[[Any], Any] | None = None
    delay: float | Gate | None = None
    cut: int | None = None
    delay_response: float | Gate | None = None
    drop: bool = False
    drop_response: bool = False
    duplicate: bool = False
    raw_bytes: bytes | None = None
    reset: bool = False
    close: int | None = None
    message: str | bytes | None = None
    stall: bool = False
    after: int = 0
    times: int | None = 1
    skip: int = 0
    share: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.share is not None and not 0 <= self.share <= 1:
            raise InvalidRequestError(f"share must be from 0 to 1, got {self.share!r}")

    @property
    def _closes(self) -> bool:
        """True if the connection is closed before the request is processed."""
        return self.drop or (self.reset and not self.drop_response and self.cut is None)

    def _applies_to_messages(self, *, over_websocket: bool) -> bool:
        """Return whether the fault affects the messages of a WebSocket, not a request.

        Args:
            over_websocket: Whether the request was sent over the WebSocket, not to open it.
        """
        if self.status is not None or self.drop or self.drop_response:
            return False
        if self.close is not None or self.message is not None or self.stall:
            return True
        if self.after > 0:
            return self.cut is not None or self.raw_bytes is not None
        return self.cut is not None and not over_websocket

    async def _wait(self) -> None:
        """Wait for `delay`."""
        await wait_for_delay(self.delay)

    def _response(self) -> Response | None:
        """Return the error response, or ``None`` if the real response is sent."""
        if self.status is None:
            return None
        if isinstance(self.body, str | bytes):
            body = self.body.encode() if isinstance(self.body, str) else self.body
            return Response(self.status, body, raw_headers(self.headers))
        default = {"detail": f"scripted fault {self.status}"}
        return json_response(self.status, default if self.body is None else self.body, self.headers)


@dataclass(slots=True, eq=False)
class _ScheduledFault:
    endpoint_id: str | None
    fault: Fault
    skip: int
    remaining: int | None
    random: random.Random

    def matches(self, request: RecordedRequest, names: tuple[str, ...]) -> bool:
        if self.endpoint_id is not None and self.endpoint_id not in names:
            return False
        route = self.fault.route
        if request.route != route and (route is not None or request.route in _UNAFFECTED):
            return False
        return self.fault.when is None or self.fault.when(request)


class Faults:
    """The scheduled faults, in the order in which they were added."""

    def __init__(self) -> None:
        self._scheduled: list[_ScheduledFault] = []

    def __bool__(self) -> bool:
        return bool(self._scheduled)

    def add(self, endpoint_id: str | None, fault: Fault) -> None:
        """Schedule a fault for an endpoint; ``None`` for all endpoints."""
        times = fault.times if fault.share is None else None
        chance = random.Random(fault.seed)  # noqa: S311 - reproducible, not secret
        self._scheduled.append(_ScheduledFault(endpoint_id, fault, fault.skip, times, chance))

    def clear(self) -> None:
        """Remove all faults."""
        self._scheduled.clear()

    def match(self, request: RecordedRequest, names: tuple[str, ...]) -> Fault | None:
        """Return the fault for a request, and count it.

        Args:
            request: The request.
            names: The ids of its endpoint.
        """
        for scheduled in list(self._scheduled):
            if not scheduled.matches(request, names):
                continue
            if scheduled.skip > 0:
                scheduled.skip -= 1
                continue
            share = scheduled.fault.share
            if share is not None and scheduled.random.random() >= share:
                continue
            if scheduled.remaining is not None:
                scheduled.remaining -= 1
            if scheduled.remaining == 0:
                self._scheduled.remove(scheduled)
            return scheduled.fault
        return None


async def wait_for_delay(delay: float | Gate | None) -> None:
    """Wait for a number of seconds, or until a gate is open."""
    if isinstance(delay, Gate):
        await delay.wait()
    elif delay is not None:
        await asyncio.sleep(delay)
