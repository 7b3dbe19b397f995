"""Error responses (four JSON forms, plain text and HTML) to exceptions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._protocol.serialization import decode_json, json_text, object_or_empty
from fal_async.errors import (
    AccountLockedError,
    AuthenticationError,
    ContentPolicyError,
    ErrorDetail,
    FalClientHTTPError,
    InvalidInputError,
    JobCancelledError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StartTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fal_async._protocol.response import Response

__all__ = ["exception_from_response", "raise_for_status"]

#: The maximum length of a message from a plain-text body, in characters.
MAX_MESSAGE: Final = 500
#: The type of an error detail without one.
_UNNAMED: Final = "unknown"
_LOCKED = re.compile(r"\b(?:locked|balance)\b", re.IGNORECASE)

_BY_STATUS: Final[Mapping[int, type[FalClientHTTPError]]] = {
    400: InvalidInputError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: InvalidInputError,
    429: RateLimitError,
    499: JobCancelledError,
}
_BY_TYPE: Final[Mapping[str, type[FalClientHTTPError]]] = {
    "content_policy_violation": ContentPolicyError,
    "client_cancelled": JobCancelledError,
}
_RETRYABLE_TYPES: Final = frozenset({
    "request_timeout",
    "startup_timeout",
    "runner_scheduling_failure",
    "runner_connection_timeout",
    "runner_disconnected",
    "runner_connection_refused",
    "runner_connection_error",
    "runner_incomplete_response",
    "runner_server_error",
})  # fmt: skip


def raise_for_status(response: Response, *, request_id: str | None = None) -> None:
    """Raise the typed error of a response with an error status."""
    if not response.ok:
        raise exception_from_response(response, request_id=request_id)


def exception_from_response(
    response: Response, *, request_id: str | None = None
) -> FalClientHTTPError:
    """Return the typed error of a response with an error status.

    Args:
        response: The response.
        request_id: The id of the request, for responses without one.
    """
    try:
        body: object = decode_json(response.body)
    except ValueError:
        body = response.text
    fields = object_or_empty(body)
    if "detail" not in fields and (error := object_or_empty(fields.get("error"))):
        fields = error  # of the platform API
    detail = fields.get("detail")
    items = cast("list[object]", detail) if isinstance(detail, list) else []
    details = [_detail(each) for item in items if (each := object_or_empty(item))]
    error_type = (
        _text(fields, "error_type")
        or response.headers.get("x-fal-error-type")
        or _text(fields, "type")
        or next((detail.type for detail in details if detail.type != _UNNAMED), None)
    )
    message = _message(response, body, fields, details)
    retryable = False if response.is_start_timeout else response.needs_retry
    if retryable is None:
        is_temporary = response.status_code in {408, 429, 502, 503, 504}
        retryable = is_temporary or error_type in _RETRYABLE_TYPES
    return _exception_class(response, message, error_type)(
        message,
        response.status_code,
        error_type=error_type,
        details=details,
        request_id=response.request_id or _text(fields, "request_id") or request_id,
        retry_after=response.retry_after,
        retryable=retryable,
        response_headers=response.headers,
        body=body,
    )


def _exception_class(
    response: Response, message: str, error_type: str | None
) -> type[FalClientHTTPError]:
    if response.is_start_timeout:
        return StartTimeoutError
    if error_type is not None and error_type in _BY_TYPE:
        return _BY_TYPE[error_type]
    if response.status_code == 403 and _LOCKED.search(message):
        return AccountLockedError
    if response.status_code >= 500:
        return ServerError
    return _BY_STATUS.get(response.status_code, FalClientHTTPError)


def _message(
    response: Response, body: object, fields: Mapping[str, Any], details: Sequence[ErrorDetail]
) -> str:
    """Return the message in a body, or else one for the response. HTML pages are not shown."""
    if details:
        parts: list[str] = []
        for detail in details:
            where = ".".join(str(part) for part in detail.loc if part != "body")
            parts.append(f"{where}: {detail.message}" if where else detail.message)
        return "; ".join(parts)
    for key in ("detail", "message", "error", "status"):
        value = fields.get(key)
        if value and (text := value if isinstance(value, str) else json_text(value)[:MAX_MESSAGE]):
            return text
    if 300 <= response.status_code < 400:
        return "the platform returned a redirect, which is not followed"
    if body and body != {"detail": ""}:
        text = " ".join(body.split()) if isinstance(body, str) else json_text(body)
        if text and not text.startswith("<") and "<html" not in text.lower():
            return text[:MAX_MESSAGE]
    if response.status_code == 499:
        return "the job was cancelled"
    return f"the platform returned status {response.status_code} without a reason"


def _detail(item: Mapping[str, Any]) -> ErrorDetail:
    loc = item.get("loc")
    parts = cast("list[object]", loc) if isinstance(loc, list) else []
    return ErrorDetail(
        message=_text(item, "msg") or _text(item, "message") or "invalid",
        type=_text(item, "type") or _UNNAMED,
        loc=tuple(part for part in parts if isinstance(part, int | str)),
        ctx=object_or_empty(item.get("ctx")),
        url=_text(item, "url"),
    )


def _text(item: Mapping[str, Any], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) and value else None
