"""Injection of faults into HTTP requests, WebSockets and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fal_async.emulator._faults import wait_for_delay
from fal_async.emulator._json import decode, encode
from fal_async.emulator._recorder import RecordedRequest
from fal_async.emulator._responses import raw_headers, request_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async.emulator._faults import Fault, Faults
    from fal_async.emulator._gate import Gate
    from fal_async.emulator._jobs import Job
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._responses import Message, Response, Send
    from fal_async.emulator._server.websocket import WebSocket

_DATA = b"data: "


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
    if websocket is not None and fault._applies_to_messages(over_websocket=websocket.has_response):
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
    if fault.delay_response is not None:
        request.wrap_send(lambda send: _DelayedSend(fault.delay_response, send))
    if fault.cut is not None:
        request.wrap_send(lambda send: _TruncatedSend(fault, request, send, fault.cut or 0))
    if fault.status is None and fault.headers:
        request.wrap_send(lambda send: _HeadersSend(fault, send))
    if fault.transform is not None:
        transform = fault.transform
        request.wrap_send(lambda send: _TransformedSend(transform, send))
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


class _TruncatedSend:
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


class _DelayedSend:
    """An ASGI ``send`` that waits before a response starts."""

    def __init__(self, delay: float | Gate | None, send: Send) -> None:
        self._delay = delay
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await wait_for_delay(self._delay)
        await self._send(message)


class _HeadersSend:
    """An ASGI ``send`` that adds headers to a response, and removes some."""

    def __init__(self, fault: Fault, send: Send) -> None:
        self._names = {name.lower().encode("latin-1") for name in fault.headers}
        self._headers = raw_headers(fault.headers)
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message["headers"] if pair[0] not in self._names]
            message = {**message, "headers": kept + self._headers}
        await self._send(message)


class _TransformedSend:
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
