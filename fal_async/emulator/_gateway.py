"""The gateway: the ASGI app in front of all hosts."""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final

from fal_async.emulator._exchange import BodyTooLargeError, Exchange
from fal_async.emulator._hosts.calls import Call, Host, called_id
from fal_async.emulator._hosts.carrier import CarrierHost
from fal_async.emulator._hosts.cdn import CdnHost
from fal_async.emulator._hosts.queue import QueueHost
from fal_async.emulator._hosts.run import RunHost
from fal_async.emulator._hosts.sockets import SocketHost
from fal_async.emulator._hosts.storage import StorageHost
from fal_async.emulator._mishaps import misbehave
from fal_async.emulator._policy import BadRequestError
from fal_async.emulator._record import RecordedRequest
from fal_async.emulator._replies import Refusal, Reply, detail, json_reply, request_error

if TYPE_CHECKING:
    from fal_async.emulator._hosts.names import HostName
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._replies import Message, Receive, Send

_PREFLIGHT = [
    (b"access-control-allow-methods", b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
    (b"access-control-max-age", b"600"),
]


#: The largest body of a request without a valid key or token, in bytes.
_ANONYMOUS_BODY: Final = 32 * 1024 * 1024

_log = logging.getLogger("fal_async.emulator")


class Gateway:
    """Takes each request to the host that it is for, and notes it down."""

    def __init__(self, platform: Platform) -> None:
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
            "ws": CarrierHost(platform, partial(self._answer, host=runs)),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        try:
            origin = exchange.headers.get("origin")
            if origin is not None and not self._platform.settings.allows(origin):
                await exchange.reply(_forbid(exchange, origin))
                return
            if not await exchange.read(self._body_limit(exchange)):
                return
            if exchange.method == "OPTIONS":
                await exchange.reply(_preflight(exchange))
            else:
                await self._answer(exchange, self._host_of(exchange))
        except BodyTooLargeError:
            await exchange.reply(detail(413, "Request Entity Too Large", {"connection": "close"}))
        except asyncio.CancelledError:
            # The client hung up, or the emulator stops: there is nobody to be answered.
            await exchange.connection.end()

    def _host_of(self, exchange: Exchange) -> Host:
        if exchange.is_proxied and not exchange.is_forwarded:
            return _Nowhere()
        hosts = self._hosts if exchange.websocket is None else self._socket_hosts
        return hosts.get(exchange.place.host, _Nowhere())

    def _body_limit(self, exchange: Exchange) -> float:
        """The largest body that is read, in bytes, before it is known who sent it."""
        authorization = exchange.headers.get("authorization")
        is_known = authorization is not None and (
            self._platform.files.user_of(authorization) is not None
            or self._platform.accounts.refusal(authorization, "", private=True) is None
        )
        # The signature of a presigned URL is checked later; it was given to somebody with a key.
        return math.inf if is_known or "signature" in exchange.parameters else _ANONYMOUS_BODY

    async def _answer(self, exchange: Exchange, host: Host) -> None:
        call = host.call(exchange)
        request = _recorded(exchange, call)
        names = self._note(request, call)
        if exchange.websocket is not None:
            exchange.websocket.on_accepted = partial(self._note_accepted, request, exchange)
        answer = partial(self._answer_call, exchange, host, call)
        fault = self._platform.faults.strike(request, names)
        try:
            await (answer() if fault is None else misbehave(fault, exchange, answer))
        finally:
            request.status = request.status or exchange.status
            request.request_id = exchange.request_id
            self._platform.record.ring()

    async def _answer_call(self, exchange: Exchange, host: Host, call: Call) -> None:
        if exchange.is_proxied:  # a server proxy adds the key that browsers do not have
            exchange.headers.setdefault("authorization", f"Key {self._platform.accounts.key}")
        try:
            await host.answer(exchange, call)
        except Refusal as refusal:
            await exchange.reply(refusal.reply)
        except BadRequestError as error:
            await exchange.reply(request_error("bad_request", str(error)))

    def _note_accepted(self, request: RecordedRequest, exchange: Exchange) -> None:
        request.status, request.request_id = 101, exchange.request_id
        self._platform.record.ring()

    def _note(self, request: RecordedRequest, call: Call) -> tuple[str, ...]:
        """Note the request down; gives the ids by which a fault may mean it."""
        self._platform.record.add(request)
        job = self._platform.jobs.get(call.job_id) if call.job_id else None
        called = job.endpoint if job else request.endpoint
        target = self._platform.registry.resolve(called)
        if target is None:
            return (called,)
        target.endpoint.counters.requests[call.route] += 1
        return (called, target.endpoint.id)


class _Nowhere:
    """Where URLs lead that lead to no host."""

    def call(self, exchange: Exchange) -> Call:
        return Call("other", called_id(""))

    async def answer(self, exchange: Exchange, call: Call) -> None:
        if exchange.is_proxied:
            raise Refusal(json_reply(400, "Invalid request"))
        raise Refusal(detail(404, "Not Found"))


def _recorded(exchange: Exchange, call: Call) -> RecordedRequest:
    return RecordedRequest(
        route=call.route,
        endpoint=str(call.called),
        method=exchange.method,
        host=exchange.place.host or "",
        path=exchange.raw_path,
        query=exchange.query,
        headers=exchange.headers,
        body=exchange.body,
        request_id=call.job_id,
        warnings=exchange.warnings,
    )


def _forbid(exchange: Exchange, origin: str) -> Reply:
    """Refuse a web page of somebody else, which must not even read the refusal."""
    _log.warning(
        "Refused a web page at %s; Emulator(allow_origins=[...]) lets its pages call", origin
    )
    del exchange.headers["origin"]
    return detail(403, "Pages of this origin may not call")


def _preflight(exchange: Exchange) -> Reply:
    wanted = exchange.headers.get("access-control-request-headers", "*")
    allowed = (b"access-control-allow-headers", wanted.encode("latin-1"))
    return Reply(200, b"", [*_PREFLIGHT, allowed])
