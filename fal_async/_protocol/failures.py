"""Error replies: three JSON shapes, plain text and HTML, into one tree of errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._protocol.bodies import decode_json, json_text
from fal_async.errors import (
    AccountLockedError,
    AuthenticationError,
    ContentPolicyError,
    FalClientHTTPError,
    InvalidInputError,
    JobCancelledError,
    NotFoundError,
    PermissionDeniedError,
    Problem,
    RateLimitError,
    ServerError,
    StartTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fal_async._protocol.replies import Reply

__all__ = ["error_from", "raise_for_status"]

#: How much of a plain-text body becomes the message, in characters.
MAX_MESSAGE: Final = 500
#: The type of a problem that the platform gives none.
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
_PASSING: Final = frozenset({
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


def raise_for_status(reply: Reply, *, request_id: str | None = None) -> None:
    """Raise the typed error of a reply that is not a success."""
    if not reply.ok:
        raise error_from(reply, request_id=request_id)


def error_from(reply: Reply, *, request_id: str | None = None) -> FalClientHTTPError:
    """The typed error that a reply with an error status stands for.

    Args:
        reply: The reply.
        request_id: The id that is known from elsewhere, for replies that do not carry it.
    """
    body: object = _body(reply)
    fields = _object(body)
    problems = _problems(fields.get("detail"))
    error_type = _error_type(fields, reply, problems)
    message = _message(fields, problems) or _plain(reply, body)
    return _class_of(reply, message, error_type)(
        message,
        reply.status_code,
        error_type=error_type,
        problems=problems,
        request_id=reply.request_id or request_id,
        retry_after=reply.retry_after,
        retryable=_retryable(reply, error_type),
        response_headers=reply.headers,
        body=body,
    )


def _body(reply: Reply) -> Any:
    try:
        return decode_json(reply.body)
    except ValueError:
        return reply.text


def _class_of(reply: Reply, message: str, error_type: str | None) -> type[FalClientHTTPError]:
    if reply.missed_start:
        return StartTimeoutError
    if error_type is not None and error_type in _BY_TYPE:
        return _BY_TYPE[error_type]
    if reply.status_code == 403 and _LOCKED.search(message):
        return AccountLockedError
    if reply.status_code >= 500:
        return ServerError
    return _BY_STATUS.get(reply.status_code, FalClientHTTPError)


def _error_type(fields: Mapping[str, Any], reply: Reply, problems: Sequence[Problem]) -> str | None:
    return (
        _text(fields, "error_type")
        or reply.headers.get("x-fal-error-type")
        or _text(fields, "type")
        or next((problem.type for problem in problems if problem.type != _UNNAMED), None)
    )


def _message(fields: Mapping[str, Any], problems: Sequence[Problem]) -> str:
    if problems:
        return "; ".join(_describe(problem) for problem in problems)
    for key in ("detail", "message", "error", "status"):
        value = fields.get(key)
        if value and (text := value if isinstance(value, str) else json_text(value)[:MAX_MESSAGE]):
            return text
    return ""


def _describe(problem: Problem) -> str:
    where = ".".join(str(part) for part in problem.loc if part != "body")
    return f"{where}: {problem.message}" if where else problem.message


def _plain(reply: Reply, body: object) -> str:
    """A message for a body that has none; pages of an ingress are not shown."""
    if 300 <= reply.status_code < 400:
        return "the platform answered with a redirect, which is never followed"
    if body and body != {"detail": ""}:
        text = " ".join(body.split()) if isinstance(body, str) else json_text(body)
        if text and not text.startswith("<") and "<html" not in text.lower():
            return text[:MAX_MESSAGE]
    if reply.status_code == 499:
        return "the job was cancelled"
    return f"the platform answered with status {reply.status_code} and no reason"


def _problems(detail: object) -> list[Problem]:
    if not isinstance(detail, list):
        return []
    items = cast("list[object]", detail)
    return [_problem(fields) for item in items if (fields := _object(item))]


def _problem(item: Mapping[str, Any]) -> Problem:
    loc = item.get("loc")
    parts = cast("list[object]", loc) if isinstance(loc, list) else []
    return Problem(
        message=_text(item, "msg") or _text(item, "message") or "invalid",
        type=_text(item, "type") or _UNNAMED,
        loc=tuple(part for part in parts if isinstance(part, int | str)),
        ctx=_object(item.get("ctx")),
        url=_text(item, "url"),
    )


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _text(item: Mapping[str, Any], name: str) -> str | None:
    value = item.get(name)
    return value if isinstance(value, str) and value else None


def _retryable(reply: Reply, error_type: str | None) -> bool:
    if reply.missed_start:
        return False
    if reply.needs_retry is not None:
        return reply.needs_retry
    return error_type in _PASSING or reply.status_code in {408, 429, 502, 503, 504}
