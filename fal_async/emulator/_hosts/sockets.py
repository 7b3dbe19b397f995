"""The WebSockets of ``fal.run``: realtime sessions, and sockets of apps."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from websockets.frames import CloseCode

from fal_async.emulator._hosts.calls import Call, authenticate, called_id, new_job
from fal_async.emulator._json import encode
from fal_async.emulator._replies import Refusal, detail, too_many_running
from fal_async.emulator._websocket import DisconnectedError

if TYPE_CHECKING:
    from fal_async.emulator._exchange import Exchange
    from fal_async.emulator._job import Job
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._record import Route
    from fal_async.emulator._registry import Target
    from fal_async.emulator._sockets import SocketRunner
    from fal_async.emulator._websocket import WebSocket

_UNAUTHORIZED = {"status": "error", "error": "Unauthorized"}

logger = logging.getLogger("fal_async.emulator")


class SocketHost:
    """Answers requests for a WebSocket to ``fal.run``."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def call(self, exchange: Exchange) -> Call:
        """A realtime session, or a socket with the app's own protocol."""
        called = called_id(exchange.place.path)
        target = self._platform.registry.resolve(str(called))
        route: Route = "realtime" if called.path.endswith("realtime") else "socket"
        if target is not None and target.endpoint.socket is not None:
            route = target.endpoint.socket.route
        return Call(route, called)

    async def answer(self, exchange: Exchange, call: Call) -> None:
        """Let the app speak with the client."""
        websocket = exchange.upgrade()
        target = self._platform.registry.resolve(str(call.called))
        if not self._is_authorized(exchange, call, target):
            return await _dismiss(websocket)
        if target is None:
            raise Refusal(detail(404, f'Application "{call.called.alias}" not found'))
        runner = target.endpoint.socket
        if runner is None:
            return await _end_unforwarded(websocket)
        if refusal := self._platform.accounts.locked():
            raise Refusal(refusal)
        limit = self._platform.scheduler.limit_reached(target.endpoint)
        if limit is not None:
            raise Refusal(too_many_running(limit))
        await self._serve(exchange, call, target, runner)
        return None

    def _is_authorized(self, exchange: Exchange, call: Call, target: Target | None) -> bool:
        token = exchange.parameters.get("fal_jwt_token")
        if token is not None:
            return self._platform.tokens.admits(token, call.called)
        authenticate(self._platform, exchange, call, target)
        return True

    async def _serve(
        self, exchange: Exchange, call: Call, target: Target, runner: SocketRunner
    ) -> None:
        platform, endpoint = self._platform, target.endpoint
        request_id = exchange.request_id or str(uuid.uuid4())
        job = new_job(platform, exchange, call, target, request_id=request_id, direct=True)
        endpoint.counters.executions += 1
        with (
            platform.scheduler.direct_run(job, endpoint),
            exchange.connection.when_lost(job.call_off),
        ):
            await _run(runner, job, exchange.upgrade())


async def _run(runner: SocketRunner, job: Job, websocket: WebSocket) -> None:
    try:
        await runner.serve(job, websocket)
    except DisconnectedError:
        return
    except Refusal:
        await _end_unforwarded(websocket)
    except (Exception, SystemExit, KeyboardInterrupt):
        logger.exception("The runner of %s crashed", job.endpoint)
        if websocket.was_answered:
            await websocket.drop()
        else:
            await _end_unforwarded(websocket)


async def _end_unforwarded(websocket: WebSocket) -> None:
    """End a handshake that the app refused as the edge does, which has accepted it before."""
    try:
        await websocket.accept()
        await websocket.close(CloseCode.INTERNAL_ERROR, "Error while forwarding the request")
    except DisconnectedError:
        return


async def _dismiss(websocket: WebSocket) -> None:
    """Tell a client that its token is no good: over the socket, where browsers can read it."""
    try:
        await websocket.accept()
        await websocket.send(encode(_UNAUTHORIZED).decode())
        await websocket.close()
    except DisconnectedError:
        return
