"""The gateway: the ASGI app in front of all hosts."""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final

from fal_async.emulator._faults import inject_fault
from fal_async.emulator._hosts.base import Call, Host, parse_called_id
from fal_async.emulator._hosts.cdn import CdnHost
from fal_async.emulator._hosts.queue import QueueHost
from fal_async.emulator._hosts.rest import StorageHost
from fal_async.emulator._hosts.run import RunHost, SocketHost
from fal_async.emulator._hosts.ws import WebSocketHTTPHost
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
    from fal_async.emulator._request import HostName
    from fal_async.emulator._responses import Message, Receive, Send
    from fal_async.emulator._state import PlatformState

_PREFLIGHT = [
    (b"access-control-allow-methods", b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
    (b"access-control-max-age", b"600"),
]


#: The largest body of a request without a valid key or token, in bytes.
_ANONYMOUS_BODY: Final = 32 * 1024 * 1024

_log = logging.getLogger("fal_async.emulator")


class Gateway:
    """Takes each request to the host that it is for, and notes it down."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform
        runs = RunHost(platform)
        self._hosts: dict[HostName | None, Host] = {
            "run": runs,
            "queue": QueueHost(platform),
            "rest": StorageHost(platform),
            "cdn": CdnHost(platform),
        }
        self._socket_hosts: dict[HostName | None, Host] = {
            "run": SocketHost(platform),
            "ws": WebSocketHTTPHost(platform, partial(self._answer, host=runs)),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = GatewayRequest(scope, receive, send)
        try:
            origin = exchange.headers.get("origin")
            if origin is not None and not self._platform.settings.allows(origin):
                await exchange.response(_forbid(exchange, origin))
                return
            if not await exchange.read(self._body_limit(exchange)):
                return
            if exchange.method == "OPTIONS":
                await exchange.response(_preflight(exchange))
            else:
                await self._answer(exchange, self._host_of(exchange))
        except BodyTooLargeError:
            await exchange.response(
                error_response(413, "Request Entity Too Large", {"connection": "close"})
            )
        except asyncio.CancelledError:
            # The client hung up, or the emulator stops: there is nobody to be answered.
            await exchange.connection.end()

    def _host_of(self, exchange: GatewayRequest) -> Host:
        if exchange.is_proxied and not exchange.is_forwarded:
            return _UnknownHost()
        hosts = self._hosts if exchange.websocket is None else self._socket_hosts
        return hosts.get(exchange.location.host, _UnknownHost())

    def _body_limit(self, exchange: GatewayRequest) -> float:
        """The largest body that is read, in bytes, before it is known who sent it."""
        authorization = exchange.headers.get("authorization")
        is_known = authorization is not None and (
            self._platform.files.user_of(authorization) is not None
            or self._platform.accounts.reject_reason(authorization, "", private=True) is None
        )
        # The signature of a presigned URL is checked later; it was given to somebody with a key.
        return math.inf if is_known or "signature" in exchange.parameters else _ANONYMOUS_BODY

    async def _answer(self, exchange: GatewayRequest, host: Host) -> None:
        call = host.call(exchange)
        request = _recorded(exchange, call)
        names = self._record(request, call)
        if exchange.websocket is not None:
            exchange.websocket.on_accepted = partial(self._note_accepted, request, exchange)
        answer = partial(self._answer_call, exchange, host, call)
        fault = self._platform.faults.match(request, names)
        try:
            await (answer() if fault is None else inject_fault(fault, exchange, answer))
        finally:
            request.status = request.status or exchange.status
            request.request_id = exchange.request_id
            self._platform.record.notify()

    async def _answer_call(self, exchange: GatewayRequest, host: Host, call: Call) -> None:
        if exchange.is_proxied:  # a server proxy adds the key that browsers do not have
            exchange.headers.setdefault("authorization", f"Key {self._platform.accounts.key}")
        try:
            await host.answer(exchange, call)
        except RejectedError as refusal:
            await exchange.response(refusal.response)
        except BadRequestError as error:
            await exchange.response(request_error("bad_request", str(error)))

    def _note_accepted(self, request: RecordedRequest, exchange: GatewayRequest) -> None:
        request.status, request.request_id = 101, exchange.request_id
        self._platform.record.notify()

    def _record(self, request: RecordedRequest, call: Call) -> tuple[str, ...]:
        """Note the request down; gives the ids by which a fault may mean it."""
        self._platform.record.add(request)
        job = self._platform.jobs.get(call.job_id) if call.job_id else None
        called = job.endpoint if job else request.endpoint
        target = self._platform.registry.resolve(called)
        if target is None:
            return (called,)
        target.endpoint.counters.requests[call.route] += 1
        return (called, target.endpoint.id)


class _UnknownHost:
    """Where URLs lead that lead to no host."""

    def call(self, exchange: GatewayRequest) -> Call:
        return Call("other", parse_called_id(""))

    async def answer(self, exchange: GatewayRequest, call: Call) -> None:
        if exchange.is_proxied:
            raise RejectedError(json_response(400, "Invalid request"))
        raise RejectedError(error_response(404, "Not Found"))


def _recorded(exchange: GatewayRequest, call: Call) -> RecordedRequest:
    return RecordedRequest(
        route=call.route,
        endpoint=str(call.called),
        method=exchange.method,
        host=exchange.location.host or "",
        path=exchange.raw_path,
        query=exchange.query,
        headers=exchange.headers,
        body=exchange.body,
        request_id=call.job_id,
        warnings=exchange.warnings,
    )


def _forbid(exchange: GatewayRequest, origin: str) -> Response:
    """Refuse a web page of somebody else, which must not even read the refusal."""
    _log.warning(
        "Refused a web page at %s; Emulator(allow_origins=[...]) lets its pages call", origin
    )
    del exchange.headers["origin"]
    return error_response(403, "Pages of this origin may not call")


def _preflight(exchange: GatewayRequest) -> Response:
    wanted = exchange.headers.get("access-control-request-headers", "*")
    allowed = (b"access-control-allow-headers", wanted.encode("latin-1"))
    return Response(200, b"", [*_PREFLIGHT, allowed])
