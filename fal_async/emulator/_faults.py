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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong with calls of an endpoint.

    Attributes:
        route: The kind of call that it befalls; ``None`` for all. ``"run"`` and ``"stream"`` are
            also requests that a WebSocket carries; ``"runner"`` is the platform's own call of the
            runner, to see the platform's retries at work.
        when: A further condition on the request; ``None`` for all requests.
        status: Answer with this HTTP status in place of the real answer.
        headers: Headers of that answer; without `status`, more headers of the real one.
        body: The body of that answer: bytes and text as they are, anything else as JSON. ``None``
            gives the usual ``{"detail": ...}``.
        transform: Changes the decoded JSON of the real answer, or of each event of a stream.
        delay: How many seconds to wait, or the gate to wait at, before the fault strikes. Alone,
            it is all that happens.
        cut: Break off after so many bytes of the body.
        drop: Close the connection without looking at the call.
        drop_response: Do what the call asks for, then close the connection without an answer.
        raw_bytes: Send these bytes in place of an answer, and close the connection.
        reset: Reset the connection (RST) where it is closed; alone, it is as `drop`.
        close: Close a WebSocket with this code, and the `body`, if that is text, as the reason.
        message: Send this over a WebSocket, text or bytes, before whatever else the fault does;
            bytes that are not msgpack, say.
        stall: Let a WebSocket fall silent: nothing is read any more, nothing sent, not even pongs.
        after: How many messages go to the client over a WebSocket before the fault strikes, be it
            `close`, `message`, `stall`, `raw_bytes` or `cut`, which counts bytes from there on.
            For a
            request that a WebSocket carries it counts from that request on.
        times: How many calls it befalls; ``None`` for all.
        skip: How many calls pass first.

    Example:
        >>> Fault(route="status", status=503, times=2).status
        503
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
    def closes(self) -> bool:
        """Whether the connection is closed before the call is looked at."""
        return self.drop or (self.reset and not self.drop_response and self.cut is None)

    def affects_messages(self, *, carried: bool) -> bool:
        """Whether it befalls the messages of a WebSocket, not a request.

        Args:
            carried: Whether the request is one that the WebSocket carries, not that for it.
        """
        if self.status is not None or self.drop or self.drop_response:
            return False
        if self.close is not None or self.message is not None or self.stall:
            return True
        if self.after > 0:
            return self.cut is not None or self.raw_bytes is not None
        return self.cut is not None and not carried

    @property
    def is_incomplete(self) -> bool:
        """Whether no whole answer arrives."""
        return (
            self.closes or self.drop_response or self.cut is not None or self.raw_bytes is not None
        )

    async def wait(self) -> None:
        """Wait as long as `delay` says."""
        if isinstance(self.delay, Gate):
            await self.delay.wait()
        elif self.delay is not None:
            await asyncio.sleep(self.delay)

    def response(self) -> Response | None:
        """The answer that it gives in place of the real one, if it gives one."""
        if self.status is None:
            return None
        if isinstance(self.body, str | bytes):
            body = self.body.encode() if isinstance(self.body, str) else self.body
            return Response(self.status, body, raw_headers(self.headers))
        usual = {"detail": f"scripted fault {self.status}"}
        return json_response(self.status, usual if self.body is None else self.body, self.headers)


class Faults:
    """The faults that are still to strike, in the order in which they were scripted."""

    def __init__(self) -> None:
        self._scripts: list[_ScheduledFault] = []

    @property
    def pending(self) -> bool:
        """Whether anything may go wrong at all."""
        return bool(self._scripts)

    def add(self, endpoint_id: str | None, fault: Fault) -> None:
        """Script a fault for an endpoint, or for all."""
        self._scripts.append(_ScheduledFault(endpoint_id, fault, fault.skip, fault.times))

    def clear(self) -> None:
        """Let everything go well again."""
        self._scripts.clear()

    def match(self, request: RecordedRequest, names: tuple[str, ...]) -> Fault | None:
        """The fault that befalls a request for an endpoint of these names, if one does."""
        for script in list(self._scripts):
            if script.matches(request, names) and script.take():
                if script.left == 0:
                    self._scripts.remove(script)
                return script.fault
        return None


@dataclass(slots=True, eq=False)
class _ScheduledFault:
    endpoint_id: str | None
    fault: Fault
    skip: int
    left: int | None

    def matches(self, request: RecordedRequest, names: tuple[str, ...]) -> bool:
        if self.endpoint_id is not None and self.endpoint_id not in names:
            return False
        route = self.fault.route
        if request.route != route and (route is not None or request.route == "runner"):
            return False
        return self.fault.when is None or self.fault.when(request)

    def take(self) -> bool:
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.left is not None:
            self.left -= 1
        return True


async def inject_into_websocket(fault: Fault, websocket: WebSocket) -> bool:
    """Have the fault strike once so many more messages as it says have gone to the client.

    Returns:
        Whether that was at once, and has ended the connection.
    """
    due = websocket.sent + fault.after

    async def strike(sent: int) -> None:
        if sent != due:
            return
        await fault.wait()
        if fault.message is not None:
            await websocket.send(fault.message)
        await _end(fault, websocket)

    websocket.on_sent = strike
    if not websocket.is_open:  # it is still to be accepted
        return False
    await strike(websocket.sent)
    return not websocket.is_open


async def _end(fault: Fault, websocket: WebSocket) -> None:
    if fault.close is not None:
        await websocket.close(fault.close, str(fault.body or ""))
    elif fault.stall:
        websocket.stall()
    elif fault.raw_bytes is not None:
        await websocket.drop(fault.raw_bytes, reset=fault.reset)
    elif fault.cut is not None:
        websocket.cut_after(fault.cut, reset=fault.reset)


_DATA = b"data: "


async def inject_fault(
    fault: Fault, exchange: GatewayRequest, answer: Callable[[], Awaitable[None]]
) -> None:
    """Answer an exchange as the fault has it, not as `answer` would."""
    connection, websocket = exchange.connection, exchange.websocket
    if websocket is not None and fault.affects_messages(carried=websocket.was_answered):
        is_over = await inject_into_websocket(fault, websocket)
        return None if is_over else await answer()
    if fault.cut is None:
        await fault.wait()
    if fault.closes or fault.raw_bytes is not None:
        return await connection.end(fault.raw_bytes or b"", reset=fault.reset)
    if fault.drop_response:
        exchange.wrap_send(lambda _: _discard)
        await answer()
        return await connection.end(reset=fault.reset)
    _wrap_send(fault, exchange)
    response = fault.response()
    await (answer() if response is None else exchange.response(response))
    return None


async def runner_fault(faults: Faults, endpoint: Endpoint, job: Job) -> Response | None:
    """What a runner that is scripted to fail answers this time, if it is."""
    if not faults.pending:
        return None
    call = RecordedRequest(
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
    fault = faults.match(call, (endpoint.id, job.endpoint))
    if fault is None:
        return None
    await fault.wait()
    if fault.is_incomplete:
        return request_error("runner_disconnected", "The runner broke off")
    return fault.response()


def _wrap_send(fault: Fault, exchange: GatewayRequest) -> None:
    """Put what the fault changes between the real answer and the wire."""
    if fault.cut is not None:
        exchange.wrap_send(lambda send: _TruncatingSend(fault, exchange, send, fault.cut or 0))
    if fault.status is None and fault.headers:
        exchange.wrap_send(lambda send: _WithHeaders(fault, send))
    if fault.transform is not None:
        edit = fault.transform
        exchange.wrap_send(lambda send: _TransformingSend(edit, send))


async def _discard(message: Message) -> None:
    """Where lost responses go."""


class _TruncatingSend:
    """Ends the connection after so many bytes of the body."""

    def __init__(self, fault: Fault, exchange: GatewayRequest, send: Send, left: int) -> None:
        self._fault = fault
        self._exchange = exchange
        self._send = send
        self._left = left
        self._done = False

    async def __call__(self, message: Message) -> None:
        if self._done:
            return
        body = message.get("body", b"")
        if message["type"] == "http.response.body" and len(body) >= self._left:
            self._done = True
            await self._send({**message, "body": body[: self._left], "more_body": True})
            await self._fault.wait()
            await self._exchange.connection.end(reset=self._fault.reset)
        else:
            self._left -= len(body)
            await self._send(message)


class _WithHeaders:
    """Adds the fault's headers to the real answer's."""

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
    """Changes the JSON of an answer, or of each event of a stream."""

    def __init__(self, edit: Callable[[Any], Any], send: Send) -> None:
        self._edit = edit
        self._send = send
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            if self._is_stream:
                await self._send(message)
        elif self._is_stream:
            await self._send({**message, "body": self._event(message.get("body", b""))})
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_whole()

    @property
    def _is_stream(self) -> bool:
        return any(
            name == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in self._start["headers"]
        )

    def _event(self, frame: bytes) -> bytes:
        if not frame.startswith(_DATA):
            return frame
        return _DATA + self._edited(frame[len(_DATA) :]) + b"\n\n"

    async def _send_whole(self) -> None:
        body = self._edited(self._body)
        headers = [pair for pair in self._start["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _edited(self, text: bytes) -> bytes:
        return encode(self._edit(decode(text)))
