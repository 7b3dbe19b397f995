"""Replies: bytes of the platform into values and errors of ours.

Readers are tolerant: a status object with unknown or missing parts never breaks a wait. What cannot
be read at all is an `InvalidReplyError`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._protocol.bodies import decode_json
from fal_async._protocol.logs import parse_logs
from fal_async.errors import InvalidReplyError
from fal_async.types import Cancellation, Completed, InProgress, Queued, Result, Status, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Reply",
    "Submission",
    "is_event_stream",
    "parse_cancellation",
    "parse_output",
    "parse_status",
    "parse_submission",
    "read_id",
    "read_status",
]

#: How much of a body that is not what it should be is shown in an error's text, in characters.
SHOWN: Final = 300
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ANSWERS: Final[Mapping[int, str]] = {202: "CANCELLATION_REQUESTED", 400: "ALREADY_COMPLETED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole HTTP reply.

    Attributes:
        status_code: The HTTP status.
        headers: Names in lower case; values of repeated headers are joined by commas.
        body: The decoded bytes.
        retries: How many times the exchange had been repeated before this reply came.
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = field(default=b"", repr=False)  # it may be a token
    retries: int = 0

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status_code < 300

    @property
    def request_id(self) -> str | None:
        """The id of the request; replies that never reached the gateway have none."""
        return self.headers.get("x-fal-request-id") or None

    @property
    def answered_by_app(self) -> bool:
        """Whether the reply is known to come from a runner, which has worked for it."""
        return "x-fal-billable-units" in self.headers or "x-fal-served-from" in self.headers

    @property
    def needs_retry(self) -> bool | None:
        """Whether the platform asks for or forbids a repetition; ``None`` when it is silent."""
        for name in ("x-fal-needs-retry", "x-fal-retryable"):
            value = self.headers.get(name, "").strip().lower()
            if value in {"1", "true"}:
                return True
            if value in {"0", "false"}:
                return False
        return None

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before a repetition; ``None`` when the platform does not say."""
        value = self.headers.get("retry-after", "")
        seconds = _number(value)
        return _until(value, self.headers.get("date", "")) if seconds is None else seconds

    @property
    def missed_start(self) -> bool:
        """Whether the caller's own start deadline passed, which is final."""
        return self.headers.get("x-fal-request-timeout-type", "").strip().lower() == "user"

    @property
    def content_type(self) -> str:
        """The media type, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON, or an `InvalidReplyError`."""
        try:
            return decode_json(self.body)
        except ValueError as error:
            raise InvalidReplyError(
                f"expected JSON, got {self.text[:SHOWN]!r}",
                request_id=self.request_id,
                body=self.body,
            ) from error

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object, or an `InvalidReplyError`."""
        value = self.json()
        if not isinstance(value, dict):
            raise InvalidReplyError(
                f"expected a JSON object, got {self.text[:SHOWN]!r}",
                request_id=self.request_id,
                body=value,
            )
        return cast("dict[str, Any]", value)

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 is shown as U+FFFD."""
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the queue answers to a submit. The URLs are as received, their origins unchecked."""

    request_id: str
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether a reply with these headers carries events."""
    return headers.get("content-type", "").lower().startswith("text/event-stream")


def parse_submission(reply: Reply) -> Submission:
    """Read the answer to a submit; only the request id is indispensable."""
    try:
        body = reply.json_object()
    except InvalidReplyError:
        if reply.request_id is None:
            raise
        body = {}  # the job is there, and its id is all that is needed to collect it
    request_id = read_id(body.get("request_id")) or reply.request_id
    if request_id is None:
        raise InvalidReplyError(
            f"the queue accepted the request, but named no usable id: {reply.text[:SHOWN]!r}",
            body=reply.body,
        )
    return Submission(
        request_id=request_id,
        status_url=_text(body.get("status_url")),
        response_url=_text(body.get("response_url")),
        cancel_url=_text(body.get("cancel_url")),
    )


def parse_status(reply: Reply) -> Status:
    """Read the answer to a status call."""
    return read_status(reply.json_object())


def read_status(raw: Mapping[str, Any]) -> Status:
    """Read a status object; a status that is not known is `Unknown`, never an error."""
    match raw.get("status"):
        case "IN_QUEUE":
            return Queued(_position(raw.get("queue_position")))
        case "IN_PROGRESS":
            return InProgress(parse_logs(raw.get("logs")))
        case "COMPLETED":
            metrics = raw.get("metrics")
            return Completed(
                logs=parse_logs(raw.get("logs")),
                metrics=cast("dict[str, Any]", metrics) if isinstance(metrics, dict) else {},
                error=_text(raw.get("error")),
                error_type=_text(raw.get("error_type")),
            )
        case _:
            return Unknown(dict(raw))


def parse_cancellation(reply: Reply) -> Cancellation:
    """Read the answer to a cancel call that was accepted or came too late."""
    status = _text(reply.json_object().get("status")) if reply.body else None
    return Cancellation(status or _ANSWERS.get(reply.status_code, "OK"))


def parse_output(reply: Reply) -> Any:
    """Read the output of a model: a `Result` for a JSON object, else the plain value."""
    output = _decode(reply)
    if not isinstance(output, dict):
        return output
    return Result(
        cast("dict[str, Any]", output),
        request_id=reply.request_id,
        billable_units=_number(reply.headers.get("x-fal-billable-units", "")),
        retries=reply.retries,
        headers=reply.headers,
    )


def _decode(reply: Reply) -> Any:
    kind = reply.content_type
    if kind.endswith(("/json", "+json")) or not kind:
        return reply.json() if reply.body else None
    return reply.text if kind.startswith("text/") else reply.body


def read_id(value: object) -> str | None:
    """Read an id that goes into URLs; ``None`` for what cannot, such as half a surrogate pair."""
    text = _text(value)
    return text if text is not None and text.isprintable() else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _position(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _number(value: str) -> float | None:
    """A number in plain ASCII digits; ``None`` for anything else, infinity included."""
    if not _DECIMAL.fullmatch(value.strip()):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _until(moment: str, now: str) -> float | None:
    """Seconds between two dates of headers; ``None`` when one is missing or is no date."""
    try:
        span = parsedate_to_datetime(moment) - parsedate_to_datetime(now)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, span.total_seconds())
