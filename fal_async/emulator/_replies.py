"""Replies as values, and the exact bodies with which the platform says no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from fal_async.emulator._json import decode_or_none, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

Message: TypeAlias = "MutableMapping[str, Any]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
RawHeaders: TypeAlias = "list[tuple[bytes, bytes]]"

#: The HTTP status that goes with each type of request error.
_ERROR_STATUS = {
    "request_timeout": 504,
    "startup_timeout": 504,
    "runner_scheduling_failure": 503,
    "runner_connection_timeout": 503,
    "runner_disconnected": 503,
    "runner_connection_refused": 503,
    "runner_connection_error": 503,
    "runner_incomplete_response": 502,
    "runner_server_error": 500,
    "client_disconnected": 499,
    "client_cancelled": 499,
    "bad_request": 400,
    "internal_error": 500,
}
#: The statuses of replies that have none.
WITHOUT_BODY = frozenset({204, 304})
_JSON = (b"content-type", b"application/json")


@dataclass(slots=True)
class Reply:
    """A whole reply.

    Attributes:
        status: The HTTP status.
        body: The body as it goes over the wire.
        headers: Name and value pairs, names in lower case, without the length of the body.
    """

    status: int
    body: bytes
    headers: RawHeaders

    def header(self, name: str) -> str | None:
        """The first value of a header, or ``None``."""
        wanted = name.lower().encode("latin-1")
        found = (value.decode("latin-1") for key, value in self.headers if key == wanted)
        return next(found, None)

    def json(self) -> Any:
        """The decoded body; ``None`` when it is not JSON."""
        return decode_or_none(self.body)

    @property
    def error_type(self) -> str | None:
        """The platform's name for the error that it tells of, if it does."""
        if self.status < 400:
            return None
        body = self.json()
        return cast("dict[str, Any]", body).get("error_type") if isinstance(body, dict) else None

    async def send(self, send: Send) -> None:
        """Send it as ASGI messages."""
        headers, body = self.headers, self.body
        if self.status in WITHOUT_BODY:
            body = b""
        else:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Refusal(Exception):  # noqa: N818 - it is an answer of the platform, nothing went wrong
    """A call is not to be done; with the reply that says so."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def raw_headers(headers: Mapping[str, str] | None) -> RawHeaders:
    """Headers as they are sent."""
    if not headers:
        return []
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]


def json_reply(status: int, value: object, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply whose body is the value as JSON."""
    return Reply(status, encode(value), [_JSON, *raw_headers(headers)])


def detail(status: int, value: object, headers: Mapping[str, str] | None = None) -> Reply:
    """The plain shape of errors."""
    return json_reply(status, {"detail": value}, headers)


def request_error(error_type: str, text: str, *, headers: Mapping[str, str] | None = None) -> Reply:
    """The shape of infrastructure errors, whose type is in a header, too."""
    body = {"detail": text, "error_type": error_type}
    return json_reply(
        _ERROR_STATUS[error_type], body, {"x-fal-error-type": error_type, **(headers or {})}
    )


def internal_server_error() -> Reply:
    """What an app answers when it crashes."""
    return detail(500, "Internal Server Error")


def not_found() -> Reply:
    """There is no such request, or it has expired."""
    return json_reply(404, {"status": "NOT_FOUND"})


def cancelled() -> Reply:
    """What is left of a job that was cancelled."""
    return request_error("client_cancelled", "Request cancelled by the client.")


def missed_start_deadline() -> Reply:
    """The job did not start within the time that its caller gave."""
    headers = {"x-fal-request-timeout-type": "user"}
    return request_error("request_timeout", "Request timed out", headers=headers)


def too_many_running(limit: int) -> Reply:
    """A direct run over the limit of concurrent requests."""
    body = {
        "detail": f"Reached concurrent requests limit of {limit}",
        "type": "concurrent_requests_limit",
        "data": {"limit": limit},
    }
    return json_reply(429, body, {"x-fal-needs-retry": "1"})


def path_not_found(path: str) -> Reply:
    """The app has no such path; not charged for."""
    return detail(404, f"Path {path} not found", {"x-fal-billable-units": "0"})


def method_not_allowed(allow: str) -> Reply:
    """The path exists, but not for this method."""
    return detail(405, "Method Not Allowed", {"allow": allow})
