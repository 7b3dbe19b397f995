"""Scripted faults and their injection into HTTP and WebSockets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fal_async.emulator._gate import Gate
from fal_async.emulator._json import decode, encode
from fal_async.emulator._recorder import RecordedRequest
from fal_async.emulator._responses import Response, json_response, raw_headers, request_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._responses import Message, Send
    from fal_async.emulator._server.websocket import WebSocket

__all__ = ["Fault"]

_DATA = b"data: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault in the requests to an endpoint. `Emulator.fail` schedules it.

    `route`, `when`, `skip` and `times` select requests. The other attributes describe the fault.

    Attributes:
        route: The kind of request. ``None`` selects all kinds. ``"run"`` and ``"stream"`` include
            requests over a WebSocket. ``"runner"`` is the platform's own request to a runner: it
            makes the platform retry.
        when: A predicate of the request. ``None`` selects all requests.
        status: The HTTP status of an error response that replaces the real response.
        headers: The headers of the error response. Without `status`, additional headers of the real
            response.
        body: The body of the error response: bytes or text as they are, other values as JSON.
            ``None`` sends ``{"detail": ...}``. With `close`, the close reason.
        transform: A function that transforms the decoded JSON of the real response, or of each
            event of a stream.
        delay: The time in seconds, or a gate, to wait for before the fault is injected. With `cut`,
            the connection stays open for this time after the truncated body. Without other
            attributes, the request is only delayed.
        cut: The number of bytes after which the body is truncated.
        drop: Whether to close the connection without processing the request.
        drop_response: Whether to process the request, and then to close the connection without a
            response.
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
        times: The number of requests that fail. ``None`` for all requests.
        skip: The number of selected requests that succeed first.

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
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Any = None
    transform: Callable[[Any], Any] | None = None
    delay: float | Gate | None = None
    cut: int | None = None
    drop: bool = False
    drop_response: bool = False
    raw_bytes: bytes | None = None
    reset: bool = False
    close: int | None = None
    message: str | bytes | None = None
    stall: bool = False
    after: int = 0
    times: int | None = 1
    skip: int = 0

    @property
    def _closes(self) -> bool:
        """True if the connection is closed before the request is processed."""
        return self.drop or (self.reset and not self.drop_response and self.cut is None)

    def _affects_messages(self, *, over_websocket: bool) -> bool:
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
        if isinstance(self.delay, Gate):
            await self.delay.wait()
        elif self.delay is not None:
            await asyncio.sleep(self.delay)

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

    def matches(self, request: RecordedRequest, names: tuple[str, ...]) -> bool:
        if self.endpoint_id is not None and self.endpoint_id not in names:
            return False
        route = self.fault.route
        if request.route != route and (route is not None or request.route == "runner"):
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
        self._scheduled.append(_ScheduledFault(endpoint_id, fault, fault.skip, fault.times))

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
            if scheduled.remaining is not None:
                scheduled.remaining -= 1
            if scheduled.remaining == 0:
                self._scheduled.remove(scheduled)
            return scheduled.fault
        return None


async def inject_fault(
    fault: Fault, request: GatewayRequest, handle: Callable[[], Awaitable[None]]
) -> None:
    """Handle a request with a fault.

    Args:
        fault: The fault.
        request: The request.
        handle: Handles the request without the fault.
    """
    connection, websocket = request.connection, request.websocket
    if websocket is not None and fault._affects_messages(over_websocket=websocket.has_response):
        is_closed = await inject_into_websocket(fault, websocket)
        return None if is_closed else await handle()
    if fault.cut is None:
        await fault._wait()
    if fault._closes or fault.raw_bytes is not None:
        return await connection.close(fault.raw_bytes or b"", reset=fault.reset)
    if fault.drop_response:

        async def discard(message: Message) -> None:
            """Discard the response."""

        request.wrap_send(lambda _: discard)
        await handle()
        return await connection.close(reset=fault.reset)
    if fault.cut is not None:
        request.wrap_send(lambda send: _TruncatingSend(fault, request, send, fault.cut or 0))
    if fault.status is None and fault.headers:
        request.wrap_send(lambda send: _HeadersSend(fault, send))
    if fault.transform is not None:
        transform = fault.transform
        request.wrap_send(lambda send: _TransformingSend(transform, send))
    response = fault._response()
    await (handle() if response is None else request.respond(response))
    return None


async def inject_into_websocket(fault: Fault, websocket: WebSocket) -> bool:
    """Inject a fault once `Fault.after` more messages have been sent to the client.

    Returns:
        Whether the fault was injected at once, and closed the connection.
    """
    target = websocket.sent + fault.after

    async def inject(sent: int) -> None:
        if sent != target:
            return
        await fault._wait()
        if fault.message is not None:
            await websocket.send(fault.message)
        if fault.close is not None:
            await websocket.close(fault.close, str(fault.body or ""))
        elif fault.stall:
            websocket.stall()
        elif fault.raw_bytes is not None:
            await websocket.disconnect(fault.raw_bytes, reset=fault.reset)
        elif fault.cut is not None:
            websocket.truncate(fault.cut, reset=fault.reset)

    websocket.on_sent = inject
    if not websocket.is_open:  # not accepted yet
        return False
    await inject(websocket.sent)
    return not websocket.is_open


async def runner_fault(faults: Faults, endpoint: Endpoint, job: Job) -> Response | None:
    """Return the error response of a scheduled runner fault, or ``None`` to run the runner."""
    if not faults:
        return None
    request = RecordedRequest(
        route="runner",
        endpoint=job.endpoint,
        method=job.method,
        host="run",
        path=job.path,
        query=job.query,
        headers=job.headers,
        body=job.body,
        request_id=job.request_id,
    )
    fault = faults.match(request, (endpoint.id, job.endpoint))
    if fault is None:
        return None
    await fault._wait()
    is_interrupted = fault._closes or fault.drop_response
    if is_interrupted or fault.cut is not None or fault.raw_bytes is not None:
        return request_error("runner_disconnected", "The runner has disconnected")
    return fault._response()


class _TruncatingSend:
    """An ASGI ``send`` that closes the connection after a number of bytes of the body."""

    def __init__(self, fault: Fault, request: GatewayRequest, send: Send, size: int) -> None:
        self._fault = fault
        self._request = request
        self._send = send
        self._remaining = size
        self._done = False

    async def __call__(self, message: Message) -> None:
        if self._done:
            return
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and len(body) >= self._remaining:
            self._done = True
            await self._send({**message, "body": body[: self._remaining], "more_body": True})
            await self._fault._wait()
            await self._request.connection.close(reset=self._fault.reset)
        else:
            self._remaining -= len(body)
            await self._send(message)


class _HeadersSend:
    """An ASGI ``send`` that adds headers to a response."""

    def __init__(self, fault: Fault, send: Send) -> None:
        self._headers = raw_headers(fault.headers)
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            replaced = {name for name, _ in self._headers}
            kept = [pair for pair in message["headers"] if pair[0] not in replaced]
            message = {**message, "headers": kept + self._headers}
        await self._send(message)


class _TransformingSend:
    """An ASGI ``send`` that transforms the JSON of a response, or of each event of a stream."""

    def __init__(self, transform: Callable[[Any], Any], send: Send) -> None:
        self._transform = transform
        self._send = send
        self._start: Message = {}
        self._is_stream = False
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            self._is_stream = any(
                name == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message["headers"]
            )
            if self._is_stream:
                await self._send(message)
        elif self._is_stream:
            frame: bytes = message.get("body", b"")
            if frame.startswith(_DATA):
                frame = _DATA + self._apply(frame.removeprefix(_DATA)) + b"\n\n"
            await self._send({**message, "body": frame})
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                body = self._apply(self._body)
                headers = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
                headers.append((b"content-length", b"%d" % len(body)))
                await self._send({**self._start, "headers": headers})
                await self._send({"type": "http.response.body", "body": body})

    def _apply(self, text: bytes) -> bytes:
        return encode(self._transform(decode(text)))
