"""ASGI entry point: routing, recording, fault injection."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from fal_async.emulator._hosts import (
    Call,
    CdnHost,
    ControlHost,
    Host,
    PlatformHost,
    QueueHost,
    RestHost,
    RunHost,
    WebSocketHost,
    WebSocketHTTPHost,
    parse_called_id,
)
from fal_async.emulator._injection import inject_fault
from fal_async.emulator._options import BadRequestError
from fal_async.emulator._recorder import RecordedRequest
from fal_async.emulator._request import BodyTooLargeError, GatewayRequest
from fal_async.emulator._responses import (
    RejectedError,
    Response,
    error_response,
    json_response,
    request_error,
)

if TYPE_CHECKING:
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._request import HostName, Responder
    from fal_async.emulator._responses import Message, Receive, Send
    from fal_async.emulator._state import PlatformState

_PREFLIGHT = [
    (b"access-control-allow-methods", b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
    (b"access-control-max-age", b"600"),
]
_NOT_FOUND: Final = 404
#: Routes of requests to which the emulator always responds itself: tokens of the platform are
#: secrets, and expire.
_OWN: Final[frozenset[Route]] = frozenset({"token", "cdn_token"})
_RECORDED_HOSTS: Final = frozenset({"run", "queue", "rest", "cdn"})
#: Routes of requests that need a registered endpoint.
_CALLS: Final[frozenset[Route]] = frozenset(
    {"run", "stream", "submit", "realtime", "socket", "over_websocket"}
)
#: The maximum size of the body of a request without a valid key or token, in bytes.
_ANONYMOUS_BODY: Final = 32 * 1024 * 1024

logger = logging.getLogger("fal_async.emulator")


class Gateway:
    """Records each request, and passes it to its host."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform
        runs = RunHost(platform)
        self._hosts: dict[HostName | None, Host] = {
            "run": runs,
            "queue": QueueHost(platform),
            "rest": RestHost(platform),
            "cdn": CdnHost(platform),
            "platform": PlatformHost(platform),
            "control": ControlHost(platform),
        }
        self._websocket_hosts: dict[HostName | None, Host] = {
            "run": WebSocketHost(platform),
            "ws": WebSocketHTTPHost(platform, partial(self._handle, host=runs)),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        request = GatewayRequest(scope, receive, send)
        try:
            origin = request.headers.get("origin")
            if origin is not None and not self._platform.settings.is_allowed(origin):
                logger.warning(
                    "Rejected a request from a web page at %s; Emulator(allow_origins=[...]) "
                    "allows it",
                    origin,
                )
                del request.headers["origin"]  # the page must not read the response either
                await request.respond(error_response(403, "This origin is not allowed"))
                return
            authorization = request.headers.get("authorization")
            is_known = authorization is not None and (
                self._platform.files.token_user(authorization) is not None
                or self._platform.accounts.reject_reason(authorization, "", private=True) is None
            )
            # Signatures are checked later. Only a caller with a key receives a presigned URL.
            is_limited = not is_known and "signature" not in request.parameters
            if not await request.read(_ANONYMOUS_BODY if is_limited else math.inf):
                return
            if request.method == "OPTIONS":
                requested = request.headers.get("access-control-request-headers", "*")
                allowed = (b"access-control-allow-headers", requested.encode("latin-1"))
                await request.respond(Response(200, b"", [*_PREFLIGHT, allowed]))
                return
            hosts = self._hosts if request.websocket is None else self._websocket_hosts
            host = hosts.get(request.location.host, _UnknownHost())
            if request.is_proxied and not request.is_forwarded:
                host = _UnknownHost()
            await self._handle(request, host)
        except BodyTooLargeError:
            await request.respond(
                error_response(413, "Request Entity Too Large", {"connection": "close"})
            )
        except asyncio.CancelledError:
            # The client has disconnected, or the emulator stops: no response can be sent.
            await request.connection.close()

    async def _handle(self, request: GatewayRequest, host: Host) -> None:
        """Record a request and handle it, with a fault if one is scheduled."""
        call = host.classify(request)
        recorder = self._platform.recorder
        record = RecordedRequest(
            route=call.route,
            endpoint=str(call.called),
            method=request.method,
            host=request.location.host or "",
            path=request.raw_path,
            query=request.query,
            headers=request.headers,
            body=request.body,
            request_id=call.job_id,
            warnings=request.warnings,
        )
        recorder.add(record)
        job = self._platform.jobs.get(call.job_id) if call.job_id else None
        called = job.endpoint if job else record.endpoint
        names: tuple[str, ...] = (called,)
        target = self._platform.registry.resolve(called)
        if target is not None:
            target.endpoint.counters.requests[call.route] += 1
            names = (called, target.endpoint.id)
        if request.websocket is not None:

            def on_accepted() -> None:
                record.status, record.request_id = 101, request.request_id
                recorder.notify()

            request.websocket.on_accepted = on_accepted
        handle = partial(self._respond, request, host, call)
        fault = self._platform.faults.match(record, names)
        began = time.perf_counter()
        try:
            await (handle() if fault is None else inject_fault(fault, request, handle))
        finally:
            record.status = record.status or request.status
            if target is None and call.route in _CALLS and record.status == _NOT_FOUND:
                recorder.unexpected.append(record)
            record.request_id = request.request_id
            logger.info(
                "%s %s: %s in %.0f ms (request %s)",
                record.method,
                record.path,
                record.status or "no response",
                1000 * (time.perf_counter() - began),
                record.request_id,
            )
            recorder.notify()

    async def _respond(self, request: GatewayRequest, host: Host, call: Call) -> None:
        if request.is_proxied:  # a server proxy adds the key, which browsers do not have
            request.headers.setdefault("authorization", f"Key {self._platform.accounts.main.key}")
        try:
            if (cassette := self._find_cassette(request, call)) is not None:
                await cassette.respond(request)
            else:
                await host.handle(request, call)
        except RejectedError as error:
            await request.respond(error.response)
        except BadRequestError as error:
            await request.respond(request_error("bad_request", str(error)))

    def _find_cassette(self, request: GatewayRequest, call: Call) -> Responder | None:
        """Return the recording or cassette that responds, unless the request is for the emulator.

        The emulator responds itself for registered endpoints, and for its own jobs and files.

        Raises:
            RejectedError: The credentials are not valid, or the request is for a WebSocket.
        """
        platform, host = self._platform, request.location.host
        if platform.cassette is None or call.route in _OWN or host not in _RECORDED_HOSTS:
            return None
        if platform.registry.resolve(str(call.called)) or platform.jobs.get(call.job_id or ""):
            return None
        if host == "cdn":
            own = {url.rpartition("/")[0].rpartition("/")[2] for url in platform.files.snapshot()}
            own.update(platform.files.pending)
            return None if own.intersection(request.location.path.split("/")) else platform.cassette
        if request.websocket is not None:
            raise RejectedError(error_response(501, "WebSockets are not recorded"))
        authorization = request.headers.get("authorization")
        if error := platform.accounts.reject_reason(authorization, call.called.app, private=True):
            raise RejectedError(error)
        return platform.cassette


class _UnknownHost:
    """Handles requests to unknown hosts."""

    def classify(self, request: GatewayRequest) -> Call:
        return Call("other", parse_called_id(""))

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        if request.is_proxied:
            raise RejectedError(json_response(400, "Invalid request"))
        raise RejectedError(error_response(404, "Not Found"))
