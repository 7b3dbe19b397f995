"""``ws.fal.run``: HTTP requests, one after the other, over one WebSocket."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

from fal_async.emulator._execution import IncompleteReplyError, execute
from fal_async.emulator._hosts.calls import Call, admit, called_id, new_job
from fal_async.emulator._record import RecordedRequest
from fal_async.emulator._replies import encode, too_many_running
from fal_async.emulator._websocket import DisconnectedError

if TYPE_CHECKING:
    from fal_async.emulator._exchange import Exchange
    from fal_async.emulator._job import Job
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._registry import Target
    from fal_async.emulator._replies import Message, RawHeaders
    from fal_async.emulator._websocket import WebSocket

#: Headers of the handshake that say nothing about the requests.
_OF_THE_HANDSHAKE = ("connection", "content-", "sec-websocket-", "upgrade")


class CarrierHost:
    """Answers requests for a WebSocket to ``ws.fal.run``."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def call(self, exchange: Exchange) -> Call:
        """A WebSocket that carries requests to one endpoint."""
        return Call("over_websocket", called_id(exchange.place.path))

    async def answer(self, exchange: Exchange, call: Call) -> None:
        """Answer request after request."""
        target = admit(self._platform, exchange, call)
        websocket = exchange.upgrade()
        headers = {
            name: value
            for name, value in exchange.headers.items()
            if not name.startswith(_OF_THE_HANDSHAKE)
        }
        exchange.headers = {**headers, "content-type": "application/json"}
        exchange.method = "POST"
        try:
            await websocket.accept()
            while True:
                message = await websocket.recv()
                exchange.body = message.encode() if isinstance(message, str) else message
                await self._carry(exchange, call, target, websocket)
        except DisconnectedError:
            return

    async def _carry(
        self, exchange: Exchange, call: Call, target: Target, websocket: WebSocket
    ) -> None:
        platform, endpoint = self._platform, target.endpoint
        frames = _Frames(websocket, str(uuid.uuid4()))
        request = _recorded(exchange, call, frames.request_id)
        platform.record.add(request)
        endpoint.counters.requests["run"] += 1
        limit = platform.scheduler.limit_reached(endpoint)
        if limit is not None:
            await too_many_running(limit).send(frames)
        else:
            job = new_job(
                platform, exchange, call, target, request_id=frames.request_id, direct=True
            )
            await self._run(exchange, target, job, frames)
        request.status = frames.status
        platform.record.ring()

    async def _run(self, exchange: Exchange, target: Target, job: Job, frames: _Frames) -> None:
        task = asyncio.current_task()
        endpoint = target.endpoint

        def hang_up() -> None:
            job.call_off()
            if endpoint.runner.streams and task is not None:
                task.cancel()

        job.status = "IN_PROGRESS"
        self._platform.scheduler.enter(endpoint)
        try:
            with exchange.connection.when_lost(hang_up):
                await execute(self._platform, endpoint, job, frames)
        except IncompleteReplyError:
            await exchange.connection.end()
        finally:
            job.status = "COMPLETED"
            self._platform.scheduler.leave(endpoint)


def _recorded(exchange: Exchange, call: Call, request_id: str) -> RecordedRequest:
    return RecordedRequest(
        route="run",
        endpoint=str(call.called),
        method=exchange.method,
        host="ws",
        path=exchange.raw_path,
        query=exchange.query,
        headers=exchange.headers,
        body=exchange.body,
        request_id=request_id,
    )


class _Frames:
    """The ASGI ``send`` that writes a reply as messages: a start, parts of the body, an end."""

    def __init__(self, websocket: WebSocket, request_id: str) -> None:
        self._websocket = websocket
        self._began = time.perf_counter()
        self._first_byte: float | None = None
        self._is_text = False
        self.request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message["status"], message.get("headers", []))
        elif message["type"] == "http.response.body":
            await self._chunk(message.get("body", b""))
            if not message.get("more_body", False):
                await self._end()

    async def _start(self, status: int, headers: RawHeaders) -> None:
        self.status = status
        names = {name.decode("latin-1").title(): value.decode("latin-1") for name, value in headers}
        self._is_text = names.get("Content-Type", "").startswith("application/json")
        names["X-Fal-Request-Id"] = self.request_id
        await self._say("start", {"headers": names})

    async def _chunk(self, body: bytes) -> None:
        if not body:
            return
        if self._first_byte is None:
            self._first_byte = time.perf_counter() - self._began
        await self._websocket.send(body.decode() if self._is_text else body)

    async def _end(self) -> None:
        seconds = self._first_byte or time.perf_counter() - self._began
        await self._say("end", {"time_to_first_byte_seconds": round(seconds, 6)})

    async def _say(self, kind: str, more: dict[str, object]) -> None:
        fields = {"type": kind, "request_id": self.request_id, "status": self.status, **more}
        await self._websocket.send(encode(fields).decode())
