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


#: The statuses of responses that have none.
WITHOUT_BODY = frozenset({204, 304})


_JSON = (b"content-type", b"application/json")


@dataclass(slots=True)
class Response:
    """A whole response.

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


class RejectedError(Exception):
    """A call is not to be done; with the response that says so."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def raw_headers(headers: Mapping[str, str] | None) -> RawHeaders:
    """Headers as they are sent."""
    if not headers:
        return []
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]


def json_response(status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose body is the value as JSON."""
    return Response(status, encode(value), [_JSON, *raw_headers(headers)])


def error_response(
    status: int, value: object, headers: Mapping[str, str] | None = None
) -> Response:
    """The plain shape of errors."""
    return json_response(status, {"detail": value}, headers)


def request_error(
    error_type: str, text: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """The shape of infrastructure errors, whose type is in a header, too."""
    body = {"detail": text, "error_type": error_type}
    return json_response(
        _ERROR_STATUS[error_type], body, {"x-fal-error-type": error_type, **(headers or {})}
    )


def internal_server_error() -> Response:
    """What an app answers when it crashes."""
    return error_response(500, "Internal Server Error")


def not_found() -> Response:
    """There is no such request, or it has expired."""
    return json_response(404, {"status": "NOT_FOUND"})


def cancelled() -> Response:
    """What is left of a job that was cancelled."""
    return request_error("client_cancelled", "Request cancelled by the client.")


def missed_start_deadline() -> Response:
    """The job did not start within the time that its caller gave."""
    headers = {"x-fal-request-timeout-type": "user"}
    return request_error("request_timeout", "Request timed out", headers=headers)


def too_many_running(limit: int) -> Response:
    """A direct run over the limit of concurrent requests."""
    body = {
        "detail": f"Reached concurrent requests limit of {limit}",
        "type": "concurrent_requests_limit",
        "data": {"limit": limit},
    }
    return json_response(429, body, {"x-fal-needs-retry": "1"})


def path_not_found(path: str) -> Response:
    """The app has no such path; not charged for."""
    return error_response(404, f"Path {path} not found", {"x-fal-billable-units": "0"})


def method_not_allowed(allow: str) -> Response:
    """The path exists, but not for this method."""
    return error_response(405, "Method Not Allowed", {"allow": allow})


class AppError(Exception):
    """Raised by a runner to answer with an error of its choice.

    Attributes:
        status: The HTTP status.
        detail: A text, or a list of problems with the input, or any other JSON value.
        headers: More headers of the response.
        error_type: The platform's name for the error, sent as ``X-Fal-Error-Type``, too; ``None``
            leaves it out.

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
        """The response that it stands for."""
        body = {"detail": self.detail}
        headers = self.headers
        if self.error_type is not None:
            body["error_type"] = self.error_type
            headers = {**headers, "x-fal-error-type": self.error_type}
        return json_response(self.status, body, headers)
