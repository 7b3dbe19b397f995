"""A complete HTTP response; model outputs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._protocol.serialization import decode_json
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Output", "Response", "is_event_stream", "parse_output", "read_id"]


#: How much of a body that is not what it should be is shown in an error's text, in characters.
MAX_EXCERPT: Final = 300


_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A whole HTTP response.

    Attributes:
        status_code: The HTTP status.
        headers: Names in lower case; values of repeated headers are joined by commas.
        body: The decoded bytes.
        retries: How many times the exchange had been repeated before this response came.
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = field(default=b"", repr=False)  # it may be a token
    retries: int = 0

    @property
    def ok(self) -> bool:
        """True if the status code is from 200 to 299."""
        return 200 <= self.status_code < 300

    @property
    def request_id(self) -> str | None:
        """The id of the request; responses that never reached the gateway have none."""
        return self.headers.get("x-fal-request-id") or None

    @property
    def is_from_runner(self) -> bool:
        """True if the response certainly comes from a runner."""
        return "x-fal-billable-units" in self.headers or "x-fal-served-from" in self.headers

    @property
    def needs_retry(self) -> bool | None:
        """True if the platform asks for or forbids a retry; ``None`` if it does neither."""
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
        return _seconds_between(value, self.headers.get("date", "")) if seconds is None else seconds

    @property
    def is_start_timeout(self) -> bool:
        """True if the start timeout of the call has passed, which is final."""
        return self.headers.get("x-fal-request-timeout-type", "").strip().lower() == "user"

    @property
    def content_type(self) -> str:
        """The media type, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """Decode the body as JSON, or raise `InvalidResponseError`."""
        try:
            return decode_json(self.body)
        except ValueError as error:
            raise InvalidResponseError(
                f"expected JSON, got {self.text[:MAX_EXCERPT]!r}",
                request_id=self.request_id,
                body=self.body,
            ) from error

    def json_object(self) -> dict[str, Any]:
        """Decode the body as a JSON object, or raise `InvalidResponseError`."""
        value = self.json()
        if not isinstance(value, dict):
            raise InvalidResponseError(
                f"expected a JSON object, got {self.text[:MAX_EXCERPT]!r}",
                request_id=self.request_id,
                body=value,
            )
        return cast("dict[str, Any]", value)

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 is shown as U+FFFD."""
        return self.body.decode("utf-8", "replace")


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Return whether the headers are those of an event stream."""
    return headers.get("content-type", "").lower().startswith("text/event-stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The output of a model, and the facts that its response states.

    Attributes:
        value: The decoded body.
        request_id: The id of the request, or ``None``.
        billable_units: The units that were charged, or ``None``.
        retries: How many times the request was sent again.
        headers: The response headers, names in lower case.
    """

    value: Any
    request_id: str | None = None
    billable_units: float | None = None
    retries: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def parse_output(response: Response) -> Output:
    """Decode the output of a model by its media type."""
    return Output(
        value=_decode(response),
        request_id=response.request_id,
        billable_units=_number(response.headers.get("x-fal-billable-units", "")),
        retries=response.retries,
        headers=response.headers,
    )


def _decode(response: Response) -> Any:
    kind = response.content_type
    if kind.endswith(("/json", "+json")) or not kind:
        return response.json() if response.body else None
    return response.text if kind.startswith("text/") else response.body


def read_id(value: object) -> str | None:
    """Read an id that goes into URLs; ``None`` for what cannot, such as half a surrogate pair."""
    text = _text(value)
    return text if text is not None and text.isprintable() else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: str) -> float | None:
    """Parse a number of plain ASCII digits; ``None`` for anything else, also infinity."""
    if not _DECIMAL.fullmatch(value.strip()):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _seconds_between(moment: str, now: str) -> float | None:
    """Seconds between two dates of headers; ``None`` when one is missing or is no date."""
    try:
        span = parsedate_to_datetime(moment) - parsedate_to_datetime(now)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, span.total_seconds())
