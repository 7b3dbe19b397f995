"""What a request asks for, and who may have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fal_async.emulator._jobs import Job
from fal_async.emulator._registry import CalledId, parse_id
from fal_async.emulator._responses import RejectedError, error_response
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._registry import Target
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._state import PlatformState


@dataclass(frozen=True, slots=True)
class Call:
    """A request, understood.

    Attributes:
        route: What it is for.
        called: The endpoint id in its URL.
        job_id: The request id in its URL, or ``None``.
    """

    route: Route
    called: CalledId
    job_id: str | None = None


class Host(Protocol):
    """One host of the platform."""

    def call(self, exchange: GatewayRequest) -> Call:
        """What a request asks for."""
        ...

    async def answer(self, exchange: GatewayRequest, call: Call) -> None:
        """Do it, and response.

        Raises:
            Refusal: It is not to be done; with the response that says so.
        """


def parse_called_id(text: str) -> CalledId:
    """The endpoint id in a URL; what is none passes for the name of an app that does not exist."""
    try:
        return parse_id(text)
    except InvalidRequestError:
        return CalledId(text, "")


#: Routes that pages without a key use with a token in the URL: a browser's ``EventSource`` and
#: ``WebSocket`` send no headers.
_WITH_TOKENS: frozenset[Route] = frozenset({"stream", "status_stream"})


def authenticate(
    platform: PlatformState, exchange: GatewayRequest, call: Call, target: Target | None
) -> None:
    """Let only those pass who may use the endpoint.

    Raises:
        Refusal: It is private, and there is no key; or the key or the token is wrong.
    """
    token = exchange.parameters.get("fal_jwt_token") if call.route in _WITH_TOKENS else None
    if token is not None:
        if not platform.tokens.is_valid_for(token, call.called):
            raise RejectedError(error_response(401, "Unauthorized"))
        return
    authorization = exchange.headers.get("authorization")
    private = target is None or target.endpoint.private
    if refusal := platform.accounts.reject_reason(authorization, call.called.app, private=private):
        raise RejectedError(refusal)


def authorize(platform: PlatformState, exchange: GatewayRequest, call: Call) -> Target:
    """The endpoint of a call that starts a job, for those who may start one.

    Raises:
        Refusal: They may not, or there is no such endpoint.
    """
    target = platform.registry.resolve(str(call.called))
    authenticate(platform, exchange, call, target)
    if target is None:
        raise RejectedError(error_response(404, f'Application "{call.called.alias}" not found'))
    if refusal := platform.accounts.locked():
        raise RejectedError(refusal)
    return target


def new_job(
    platform: PlatformState,
    exchange: GatewayRequest,
    call: Call,
    target: Target,
    *,
    request_id: str,
    direct: bool,
) -> Job:
    """The job that a call starts."""
    return Job(
        request_id=request_id,
        endpoint=target.id,
        app=call.called.app,
        path=target.path,
        method=exchange.method,
        query=exchange.query,
        headers=exchange.headers,
        body=exchange.body,
        direct=direct,
        ring=platform.record.notify,
    )
