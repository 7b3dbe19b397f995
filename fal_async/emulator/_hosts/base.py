"""Request classification and authorization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fal_async.emulator._jobs import Job
from fal_async.emulator._registry import CalledId, parse_id
from fal_async.emulator._responses import RejectedError, error_response
from fal_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from fal_async.emulator._credentials import Account
    from fal_async.emulator._recorder import Route
    from fal_async.emulator._registry import Target
    from fal_async.emulator._request import GatewayRequest
    from fal_async.emulator._state import PlatformState

#: Routes that pages without a key request with a token in the URL: a browser's ``EventSource`` and
#: ``WebSocket`` cannot send headers.
_TOKEN_ROUTES: frozenset[Route] = frozenset({"stream", "status_stream"})


@dataclass(frozen=True, slots=True)
class Call:
    """A classified request.

    Attributes:
        route: The kind of request.
        called: The endpoint id in the URL.
        job_id: The request id in the URL, or ``None``.
    """

    route: Route
    called: CalledId
    job_id: str | None = None


class Host(Protocol):
    """One host of the platform."""

    def classify(self, request: GatewayRequest) -> Call:
        """Classify a request by its method, path and headers."""
        ...

    async def handle(self, request: GatewayRequest, call: Call) -> None:
        """Process a request, and send the response.

        Raises:
            RejectedError: The request is rejected.
        """


def parse_called_id(text: str) -> CalledId:
    """Parse the endpoint id in a URL. An invalid id becomes the name of an unknown app."""
    try:
        return parse_id(text)
    except InvalidRequestError:
        return CalledId(text, "")


def authenticate(
    platform: PlatformState, request: GatewayRequest, call: Call, target: Target | None
) -> None:
    """Check the credentials of a request, and set its account.

    Raises:
        RejectedError: The endpoint is private and there are no credentials, or the key or token is
            not valid.
    """
    token = request.parameters.get("fal_jwt_token") if call.route in _TOKEN_ROUTES else None
    if token is not None:
        user_id = platform.tokens.verify(token, call.called)
        if user_id is None:
            raise RejectedError(error_response(401, "Unauthorized"))
        request.account = platform.accounts.get(user_id)
        return
    authorization = request.headers.get("authorization")
    private = target is None or target.endpoint.private
    if error := platform.accounts.reject_reason(authorization, call.called.app, private=private):
        raise RejectedError(error)
    request.account = platform.accounts.find(authorization)


def authorize(platform: PlatformState, request: GatewayRequest, call: Call) -> Target:
    """Check that a request may start a job, and return its target.

    Raises:
        RejectedError: The credentials are not valid, the endpoint is unknown, or the account is
            locked.
    """
    target = platform.registry.resolve(str(call.called))
    authenticate(platform, request, call, target)
    if target is None:
        raise RejectedError(error_response(404, f'Application "{call.called.alias}" not found'))
    if error := find_account(platform, request)._reject_locked():
        raise RejectedError(error)
    return target


def find_account(platform: PlatformState, request: GatewayRequest) -> Account:
    """Return the account of a request; that of the emulator if there are no credentials."""
    return request.account or platform.accounts.main


def make_job(
    platform: PlatformState,
    request: GatewayRequest,
    call: Call,
    target: Target,
    *,
    request_id: str,
    direct: bool,
) -> Job:
    """Create the job that a request starts."""
    account = find_account(platform, request)
    account._count_start()
    return Job(
        request_id=request_id,
        user_id=account.user_id,
        endpoint=target.id,
        app=call.called.app,
        path=target.path,
        method=request.method,
        query=request.query,
        headers=request.headers,
        body=request.body,
        direct=direct,
        on_change=platform.recorder.notify,
        on_crash=platform.recorder.errors.append,
    )
