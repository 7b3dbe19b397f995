"""What a request asks for, and who may have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fal_async.emulator._job import Job
from fal_async.emulator._registry import alias_of, app_of, normal_id
from fal_async.emulator._replies import Refusal, detail

if TYPE_CHECKING:
    from fal_async.emulator._exchange import Exchange
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._record import Route
    from fal_async.emulator._registry import Target


@dataclass(frozen=True, slots=True)
class Call:
    """A request, understood.

    Attributes:
        route: What it is for.
        endpoint_id: The id in its URL, in normal form if it is an id.
        job_id: The request id in its URL, or ``None``.
    """

    route: Route
    endpoint_id: str
    job_id: str | None = None


class Host(Protocol):
    """One host of the platform."""

    def call(self, exchange: Exchange) -> Call:
        """What a request asks for."""
        ...

    async def answer(self, exchange: Exchange, call: Call) -> None:
        """Do it, and reply.

        Raises:
            Refusal: It is not to be done; with the reply that says so.
        """


def called_id(text: str) -> str:
    """The id in a URL in normal form, or as it is where it is none."""
    try:
        return normal_id(text)
    except ValueError:
        return text


def authenticate(
    platform: Platform, exchange: Exchange, endpoint_id: str, *, private: bool
) -> None:
    """Let only those pass who may use the endpoint."""
    authorization = exchange.headers.get("authorization")
    if refusal := platform.accounts.refusal(authorization, endpoint_id, private=private):
        raise Refusal(refusal)


def admit(platform: Platform, exchange: Exchange, call: Call) -> Target:
    """The endpoint of a call that starts a job, for those who may start one."""
    target = platform.registry.resolve(call.endpoint_id)
    private = target is None or target.endpoint.private
    authenticate(platform, exchange, call.endpoint_id, private=private)
    if target is None:
        raise Refusal(detail(404, f'Application "{alias_of(call.endpoint_id)}" not found'))
    if refusal := platform.accounts.locked():
        raise Refusal(refusal)
    return target


def new_job(exchange: Exchange, request_id: str, target: Target, *, direct: bool) -> Job:
    """The job that a call starts."""
    return Job(
        request_id=request_id,
        endpoint=target.id,
        app=app_of(target.id),
        path=target.path,
        method=exchange.method,
        query=exchange.query,
        headers=exchange.headers,
        body=exchange.body,
        direct=direct,
    )
