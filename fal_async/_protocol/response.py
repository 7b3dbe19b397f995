"""A complete HTTP response; model outputs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

from fal_async._protocol.serialization import decode_json
from fal_async.errors import InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Output", "Response", "is_event_stream", "parse_output", "read_id", "read_text"]

#: The maximum length of an excerpt of an invalid body in an error, in characters.
MAX_EXCERPT: Final = 300

_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


# These values are not frozen, since that would double the cost of making them.


@dataclass(slots=True)
class Response:
    """A complete HTTP response.

    Attributes:
        status_code: The HTTP status.
        headers: Names in lower case. The values of repeated headers are joined by commas.
        body: The decompressed body.
        retries: The number of retries before this response.
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
        """The id of the request; ``None`` if the request did not reach the platform's gateway."""
        return self.headers.get("x-fal-request-id") or None

    @property
    def is_from_runner(self) -> bool:
        """True if the response is known to be from a runner."""
        return "x-fal-billable-units" in self.headers or "x-fal-served-from" in self.headers

    @property
    def needs_retry(self) -> bool | None:
        """True if the platform asks for a retry, false if it forbids one, ``None`` if neither."""
        for name in ("x-fal-needs-retry", "x-fal-retryable"):
            value = self.headers.get(name, "").strip().lower()
            if value in {"1", "true"}:
                return True
            if value in {"0", "false"}:
                return False
        return None

    @property
    def retry_after(self) -> float | None:
        """The seconds to wait before a retry; ``None`` if the platform does not ask for a delay."""
        value = self.headers.get("retry-after", "")
        seconds = _number(value)
        if seconds is not None:
            return seconds
        from email.utils import parsedate_to_datetime  # slow to import, and dates are rare

        try:
            delay = parsedate_to_datetime(value) - parsedate_to_datetime(self.headers["date"])
        except (LookupError, ValueError, TypeError, OverflowError):
            return None
        return max(0.0, delay.total_seconds())

    @property
    def is_start_timeout(self) -> bool:
        """True if the start timeout of the call has passed, which no retry changes."""
        return self.headers.get("x-fal-request-timeout-type", "").strip().lower() == "user"

    @property
    def billable_units(self) -> float | None:
        """The charged units; ``None`` without a valid header."""
        return _number(self.headers.get("x-fal-billable-units", ""))

    @property
    def content_type(self) -> str:
        """The media type, without parameters, in lower case."""
        return _media_type(self.headers.get("content-type", ""))

    def json(self) -> Any:
        """Decode the body as JSON, or raise `InvalidResponseError`."""
        try:
            return decode_json(self.body)
        except ValueError as error:
            raise InvalidResponseError(
                f"the response must be JSON, got {self.text[:MAX_EXCERPT]!r}",
                request_id=self.request_id,
                body=self.body,
            ) from error

    def json_object(self) -> dict[str, Any]:
        """Decode the body as a JSON object, or raise `InvalidResponseError`."""
        value = self.json()
        if not isinstance(value, dict):
            raise InvalidResponseError(
                f"the response must be a JSON object, got {self.text[:MAX_EXCERPT]!r}",
                request_id=self.request_id,
                body=value,
            )
        return cast("dict[str, Any]", value)

    @property
    def text(self) -> str:
        """The body as text, with U+FFFD for invalid UTF-8."""
        return self.body.decode("utf-8", "replace")


@lru_cache(maxsize=64)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Return whether the headers are those of an event stream."""
    return headers.get("content-type", "").lower().startswith("text/event-stream")


@dataclass(slots=True)
class Output:
    """The output of a model, with metadata of its response.

    Attributes:
        value: The decoded body.
        request_id: The id of the request, or ``None``.
        billable_units: The charged units, or ``None``.
        retries: The number of retries.
        headers: The response headers, names in lower case.
    """

    value: Any
    request_id: str | None = None
    billable_units: float | None = None
    retries: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def parse_output(response: Response) -> Output:
    """Decode the output of a model by its media type: JSON, text, or bytes."""
    kind = response.content_type
    if kind.endswith(("/json", "+json")) or not kind:
        value = response.json() if response.body else None
    else:
        value = response.text if kind.startswith("text/") else response.body
    return Output(
        value, response.request_id, response.billable_units, response.retries, response.headers
    )


def read_id(value: object) -> str | None:
    """Return an id that is valid in URLs; ``None`` for any other value, such as a surrogate."""
    text = read_text(value)
    return text if text is not None and text.isprintable() else None


def read_text(value: object) -> str | None:
    """Return a text that is not empty; ``None`` for any other value."""
    return value if isinstance(value, str) and value else None


def _number(value: str) -> float | None:
    """Parse a decimal number in ASCII digits; ``None`` for any other text, and for infinity."""
    text = value.strip()
    if not _DECIMAL.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
