"""``fal.run``: direct runs, streams and WebSockets."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Final

from websockets.frames import CloseCode

from fal_async.emulator._history import MAX_PAYLOAD
from fal_async.emulator._hosts.base import (
    Call,
    authenticate,
    authorize,
    find_account,
    make_job,
    parse_called_id,
)
from fal_async.emulator._json import encode
from fal_async.emulator._options import parse_start_timeout
from fal_async.emulator._responses import RejectedError, error_response, too_many_running
from fal_async.emulator._runners.execution import IncompleteResponseError
from fal_async.emulator._server.websocket import DisconnectedError

if TYPE_CHECKING:
    from fal_async.emulator._jobs import Job
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._responses import Message
    from fal_async.emulator._runners.sockets import SocketRunner
    from fal_async.emulator._server.websocket import WebSocket
    from fal_async.emulator._state import PlatformState

#: The status of a request whose client has disconnected before the response.
_DISCONNECTED: Final = 499
_UNAUTHORIZED = {"status": "error", "error": "Unauthorized"}


class RunHost:
    """Handles HTTP requests to ``fal.run``, which start at once or are rejected."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform

    def classify(self, request: GatewayRequest) -> Call:
        """Classify a request as a stream, by its path or ``Accept`` header, or as a run."""
        path = request.location.path
        accept = request.headers.get("accept", "")
        is_stream = path.endswith("/stream") or "text/event-stream" in accept
        return Call("stream" if is_stream else "run", parse_called_id(path))

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        """Run the runner of the endpoint."""
        request.request_id = request_id = str(uuid.uuid4())
        target = authorize(self._platform, request, call)
        parse_start_timeout(request.headers)  # only checked: a direct run starts at once
        limit = self._platform.scheduler.reached_limit(target.endpoint)
        if limit is not None:
            raise RejectedError(too_many_running(limit))
        job = make_job(self._platform, request, call, target, request_id=request_id, direct=True)
        task = asyncio.current_task()
        history = self._platform.history
        history.add(job)
        body = bytearray()

        async def send(message: Message) -> None:
            if len(body) <= MAX_PAYLOAD:
                body.extend(message.get("body", b""))
            await request.send(message)

        def on_disconnect() -> None:
            job._request_cancellation()
            if target.endpoint.runner.streams and task is not None:
                task.cancel()

        with (
            self._platform.scheduler.direct_run(job, target.endpoint),
            request.connection.on_disconnect(on_disconnect),
        ):
            try:
                await self._platform.executor.execute(target.endpoint, job, send)
            except IncompleteResponseError:
                await request.connection.close()
            finally:
                history.end(job, request.status or _DISCONNECTED, bytes(body))


class WebSocketHost:
    """Handles WebSocket requests to ``fal.run``."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform

    def classify(self, request: GatewayRequest) -> Call:
        """Classify a request by the runner of its endpoint, or by its path if there is none."""
        called = parse_called_id(request.location.path)
        target = self._platform.registry.resolve(str(called))
        route: Route = "realtime" if called.path.endswith("realtime") else "socket"
        if target is not None and target.endpoint.socket is not None:
            route = target.endpoint.socket.route
        return Call(route, called)

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        """Serve a WebSocket."""
        websocket = request.upgrade()
        target = self._platform.registry.resolve(str(call.called))
        token = request.parameters.get("fal_jwt_token")
        user_id = "" if token is None else self._platform.tokens.verify(token, call.called)
        if token is None:
            authenticate(self._platform, request, call, target)
        elif user_id is None:
            # Browsers cannot read the response to a rejected handshake.
            return await _close(websocket, CloseCode.NORMAL_CLOSURE, "", message=_UNAUTHORIZED)
        if target is None:
            raise RejectedError(error_response(404, f'Application "{call.called.alias}" not found'))
        runner = target.endpoint.socket
        if runner is None:
            return await _close_rejected(websocket)
        request.account = request.account or self._platform.accounts.get(user_id or "")
        if error := find_account(self._platform, request)._reject_locked():
            raise RejectedError(error)
        limit = self._platform.scheduler.reached_limit(target.endpoint)
        if limit is not None:
            raise RejectedError(too_many_running(limit))
        request_id = request.request_id or str(uuid.uuid4())
        job = make_job(self._platform, request, call, target, request_id=request_id, direct=True)
        target.endpoint.counters.executions += 1
        with (
            self._platform.scheduler.direct_run(job, target.endpoint),
            request.connection.on_disconnect(job._request_cancellation),
        ):
            await _serve(runner, job, websocket)
        return None


async def _serve(runner: SocketRunner, job: Job, websocket: WebSocket) -> None:
    try:
        await runner.serve(job, websocket)
    except DisconnectedError:
        return
    except RejectedError:
        await _close_rejected(websocket)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - apps may raise any
        job._report_crash(error)
        if websocket.has_response:
            await websocket.disconnect()
        else:
            await _close_rejected(websocket)


async def _close_rejected(websocket: WebSocket) -> None:
    """Close a WebSocket that the app rejected: the platform accepts each before it asks the app."""
    await _close(websocket, CloseCode.INTERNAL_ERROR, "Error while forwarding the request")


async def _close(
    websocket: WebSocket, code: int, reason: str, *, message: dict[str, str] | None = None
) -> None:
    try:
        await websocket.accept()
        if message is not None:
            await websocket.send(encode(message).decode())
        await websocket.close(code, reason)
    except DisconnectedError:
        return
