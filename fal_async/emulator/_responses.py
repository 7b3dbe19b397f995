"""Responses as values; the error bodies of the platform; `AppError`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from fal_async.emulator._json import decode_or_none, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

__all__ = ["AppError"]

Message: TypeAlias = "MutableMapping[str, Any]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
App: TypeAlias = "Callable[[Message, Receive, Send], Awaitable[None]]"
RawHeaders: TypeAlias = "list[tuple[bytes, bytes]]"

#: Statuses of responses without a body.
WITHOUT_BODY = frozenset({204, 304})
JSON_TYPE = (b"content-type", b"application/json")
EVENT_STREAM_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")

#: The HTTP status of each error type.
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


@dataclass(slots=True)
class Response:
    """A complete response.

    Attributes:
        status: The HTTP status.
        body: The body as it is sent.
        headers: Pairs of name and value, names in lower case, without ``content-length``.
    """

    status: int
    body: bytes
    headers: RawHeaders

    def header(self, name: str) -> str | None:
        """Return the first value of a header, or ``None``."""
        key = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for item, value in self.headers if item == key), None)

    def json(self) -> Any:
        """Return the decoded body, or ``None`` if it is not valid JSON."""
        return decode_or_none(self.body)

    @property
    def error_type(self) -> str | None:
        """The error type of the platform in the body. ``None`` if there is none."""
        if self.status < 400:
            return None
        body = self.json()
        return cast("dict[str, Any]", body).get("error_type") if isinstance(body, dict) else None

    async def send(self, send: Send) -> None:
        """Send the response as ASGI messages."""
        headers, body = self.headers, self.body
        if self.status in WITHOUT_BODY:
            body = b""
        else:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class RejectedError(Exception):
    """The platform rejects a request, with this response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class AppError(Exception):
    """An error response of a runner's choice. Runners raise it.

    Attributes:
        status: The HTTP status.
        detail: A text, a list of validation errors, or any other JSON value.
        headers: Additional headers of the response.
        error_type: The error type of the platform, also sent as ``X-Fal-Error-Type``. ``None``
            omits it.

    Example:
        >>> even = {"loc": ["body", "seed"], "msg": "must be even", "type": "value_error"}
        >>> AppError(422, [even]).status
        422
    """

    def __init__(
        self,
        status: int,
        detail: Any = "",
        *,
        headers: Mapping[str, str] | None = None,
        error_type: str | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers: dict[str, str] = dict(headers or {})
        self.error_type = error_type

    def response(self) -> Response:
        """Return the error response."""
        body = {"detail": self.detail}
        headers = self.headers
        if self.error_type is not None:
            body["error_type"] = self.error_type
            headers = {**headers, "x-fal-error-type": self.error_type}
        return json_response(self.status, body, headers)


def raw_headers(headers: Mapping[str, str | None] | None) -> RawHeaders:
    """Return headers as ASGI sends them, without those whose value is ``None``."""
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in (headers or {}).items()
        if value is not None
    ]


def json_response(
    status: int, value: object, headers: Mapping[str, str | None] | None = None
) -> Response:
    """Return a response with a JSON body."""
    return Response(status, encode(value), [JSON_TYPE, *raw_headers(headers)])


def error_response(
    status: int, value: object, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error response with nothing but a ``detail``."""
    return json_response(status, {"detail": value}, headers)


def request_error(
    error_type: str, text: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an infrastructure error. Its type is in the body and in a header."""
    body = {"detail": text, "error_type": error_type}
    return json_response(
        _ERROR_STATUS[error_type], body, {"x-fal-error-type": error_type, **(headers or {})}
    )


def internal_server_error() -> Response:
    """Return the response of an app that crashed."""
    return error_response(500, "Internal Server Error")


def not_found() -> Response:
    """Return the response for an unknown or expired request."""
    return json_response(404, {"status": "NOT_FOUND"})


def cancelled() -> Response:
    """Return the response of a cancelled job."""
    return request_error("client_cancelled", "Request cancelled by the client.")


def missed_start_deadline() -> Response:
    """Return the response of a job that did not start within the start timeout."""
    headers = {"x-fal-request-timeout-type": "user"}
    return request_error("request_timeout", "Request timed out", headers=headers)


def too_many_running(limit: int) -> Response:
    """Return the response to a direct run above the limit of concurrent requests."""
    body = {
        "detail": f"Reached concurrent requests limit of {limit}",
        "type": "concurrent_requests_limit",
        "data": {"limit": limit},
    }
    return json_response(429, body, {"x-fal-needs-retry": "1"})


def path_not_found(path: str) -> Response:
    """Return the response for a path that the app does not have. It costs nothing."""
    return error_response(404, f"Path {path} not found", {"x-fal-billable-units": "0"})


def method_not_allowed(allow: str) -> Response:
    """Return the response for a method that the path does not support."""
    return error_response(405, "Method Not Allowed", {"allow": allow})
