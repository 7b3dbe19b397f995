"""``fal.run``: direct runs and streams."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING

from websockets.frames import CloseCode

from fal_async.emulator._hosts.base import Call, authenticate, authorize, new_job, parse_called_id
from fal_async.emulator._json import encode
from fal_async.emulator._options import start_timeout
from fal_async.emulator._responses import RejectedError, error_response, too_many_running
from fal_async.emulator._runners.execution import IncompleteResponseError, execute
from fal_async.emulator._server.websocket import DisconnectedError

if TYPE_CHECKING:
    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._registry import Endpoint, Target
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._runners.sockets import SocketRunner
    from fal_async.emulator._server.websocket import WebSocket
    from fal_async.emulator._state import PlatformState

__all__ = []

logger = logging.getLogger("fal_async.emulator")


class RunHost:
    """Answers calls of ``fal.run``: now, or not at all."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform

    def call(self, exchange: GatewayRequest) -> Call:
        """A run; a stream if it says so by its path or by what it accepts."""
        path = exchange.location.path
        accepts = exchange.headers.get("accept", "")
        is_stream = path.endswith("/stream") or "text/event-stream" in accepts
        return Call("stream" if is_stream else "run", parse_called_id(path))

    async def answer(self, exchange: GatewayRequest, call: Call) -> None:
        """Have a runner answer."""
        exchange.request_id = request_id = str(uuid.uuid4())
        target = authorize(self._platform, exchange, call)
        start_timeout(exchange.headers)  # only to refuse a bad one: what runs at once is not late
        limit = self._platform.scheduler.limit_reached(target.endpoint)
        if limit is not None:
            raise RejectedError(too_many_running(limit))
        job = new_job(self._platform, exchange, call, target, request_id=request_id, direct=True)
        with self._platform.scheduler.direct_run(job, target.endpoint):
            await self._run(exchange, target.endpoint, job)

    async def _run(self, exchange: GatewayRequest, endpoint: Endpoint, job: Job) -> None:
        task = asyncio.current_task()

        def hang_up() -> None:
            job.request_cancellation()
            if endpoint.runner.streams and task is not None:
                task.cancel()

        with exchange.connection.on_disconnect(hang_up):
            try:
                await execute(self._platform, endpoint, job, exchange)
            except IncompleteResponseError:
                await exchange.connection.end()


_UNAUTHORIZED = {"status": "error", "error": "Unauthorized"}


class SocketHost:
    """Answers requests for a WebSocket to ``fal.run``."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform

    def call(self, exchange: GatewayRequest) -> Call:
        """A realtime session, or a socket with the app's own protocol."""
        called = parse_called_id(exchange.location.path)
        target = self._platform.registry.resolve(str(called))
        route: Route = "realtime" if called.path.endswith("realtime") else "socket"
        if target is not None and target.endpoint.socket is not None:
            route = target.endpoint.socket.route
        return Call(route, called)

    async def answer(self, exchange: GatewayRequest, call: Call) -> None:
        """Let the app speak with the client."""
        websocket = exchange.upgrade()
        target = self._platform.registry.resolve(str(call.called))
        if not self._is_authorized(exchange, call, target):
            return await _reject_token(websocket)
        if target is None:
            raise RejectedError(error_response(404, f'Application "{call.called.alias}" not found'))
        runner = target.endpoint.socket
        if runner is None:
            return await _end_unforwarded(websocket)
        if refusal := self._platform.accounts.locked():
            raise RejectedError(refusal)
        limit = self._platform.scheduler.limit_reached(target.endpoint)
        if limit is not None:
            raise RejectedError(too_many_running(limit))
        await self._serve(exchange, call, target, runner)
        return None

    def _is_authorized(self, exchange: GatewayRequest, call: Call, target: Target | None) -> bool:
        token = exchange.parameters.get("fal_jwt_token")
        if token is not None:
            return self._platform.tokens.is_valid_for(token, call.called)
        authenticate(self._platform, exchange, call, target)
        return True

    async def _serve(
        self, exchange: GatewayRequest, call: Call, target: Target, runner: SocketRunner
    ) -> None:
        platform, endpoint = self._platform, target.endpoint
        request_id = exchange.request_id or str(uuid.uuid4())
        job = new_job(platform, exchange, call, target, request_id=request_id, direct=True)
        endpoint.counters.executions += 1
        with (
            platform.scheduler.direct_run(job, endpoint),
            exchange.connection.on_disconnect(job.request_cancellation),
        ):
            await _run(runner, job, exchange.upgrade())


async def _run(runner: SocketRunner, job: Job, websocket: WebSocket) -> None:
    try:
        await runner.serve(job, websocket)
    except DisconnectedError:
        return
    except RejectedError:
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


async def _reject_token(websocket: WebSocket) -> None:
    """Tell a client that its token is no good: over the socket, where browsers can read it."""
    try:
        await websocket.accept()
        await websocket.send(encode(_UNAUTHORIZED).decode())
        await websocket.close()
    except DisconnectedError:
        return
