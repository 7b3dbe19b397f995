"""Scripted faults at work: on the wire, and in place of a runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fal_async.emulator._json import decode, encode
from fal_async.emulator._record import RecordedRequest
from fal_async.emulator._replies import raw_headers, request_error
from fal_async.emulator._socket_mishaps import spoil

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async.emulator._exchange import Exchange
    from fal_async.emulator._faults import Fault, Faults
    from fal_async.emulator._job import Job
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._replies import Message, Reply, Send

_DATA = b"data: "


async def misbehave(
    fault: Fault, exchange: Exchange, answer: Callable[[], Awaitable[None]]
) -> None:
    """Answer an exchange as the fault has it, not as `answer` would."""
    connection, websocket = exchange.connection, exchange.websocket
    if websocket is not None and fault.spoils(carried=websocket.was_answered):
        is_over = await spoil(fault, websocket)
        return None if is_over else await answer()
    if fault.cut is None:
        await fault.wait()
    if fault.closes or fault.garbage is not None:
        return await connection.end(fault.garbage or b"", reset=fault.reset)
    if fault.lost:
        exchange.divert(lambda _: _nowhere)
        await answer()
        return await connection.end(reset=fault.reset)
    _distort(fault, exchange)
    reply = fault.reply()
    await (answer() if reply is None else exchange.reply(reply))
    return None


async def runner_trouble(faults: Faults, endpoint: Endpoint, job: Job) -> Reply | None:
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
    fault = faults.strike(call, (endpoint.id, job.endpoint))
    if fault is None:
        return None
    await fault.wait()
    if fault.breaks_off:
        return request_error("runner_disconnected", "The runner broke off")
    return fault.reply()


def _distort(fault: Fault, exchange: Exchange) -> None:
    """Put what the fault changes between the real answer and the wire."""
    if fault.cut is not None:
        exchange.divert(lambda send: _Cutter(fault, exchange, send, fault.cut or 0))
    if fault.status is None and fault.headers:
        exchange.divert(lambda send: _WithHeaders(fault, send))
    if fault.edit is not None:
        edit = fault.edit
        exchange.divert(lambda send: _Editor(edit, send))


async def _nowhere(message: Message) -> None:
    """Where lost replies go."""


class _Cutter:
    """Ends the connection after so many bytes of the body."""

    def __init__(self, fault: Fault, exchange: Exchange, send: Send, left: int) -> None:
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


class _Editor:
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
