"""Call options in the headers and query parameters of requests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from fal_async.emulator._json import decode_or_none

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A reason to retry a job, by its name in ``X-Fal-Retry-Config``.
RetryReason: TypeAlias = Literal["server_error", "timeout", "connection_error"]

#: A start timeout must be longer than this, in seconds.
_MIN_START_TIMEOUT = 0.1
_TRUE = frozenset({"1", "true", "yes"})


class BadRequestError(ValueError):
    """A header or query parameter of the platform is invalid."""


def parse_start_timeout(headers: Mapping[str, str]) -> float | None:
    """Return the time within which a job must start, in seconds.

    The old name of the header has lower precedence.

    Raises:
        BadRequestError: The value is not a number of seconds, or is too short.
    """
    name = "x-fal-request-start-timeout"
    if name not in headers:
        name = "x-fal-request-timeout"
    if name not in headers:
        return None
    try:
        seconds = float(headers[name])
    except ValueError:
        seconds = math.nan
    if not _MIN_START_TIMEOUT < seconds < math.inf:
        raise BadRequestError(
            f"{name} must be a number of seconds above {_MIN_START_TIMEOUT}, got {headers[name]!r}"
        )
    return seconds


def parse_max_queue_length(parameters: Mapping[str, str]) -> int | None:
    """Return the number of queued requests up to which a request may be submitted.

    Raises:
        BadRequestError: The value is not an integer.
    """
    text = parameters.get("fal_max_queue_length")
    if text is None:
        return None
    if not text.isdecimal():
        raise BadRequestError(f"fal_max_queue_length must be an integer, got {text!r}")
    return int(text)


def parse_webhook_url(parameters: Mapping[str, str]) -> str | None:
    """Return the URL to which the result of a job is delivered, or ``None``.

    Raises:
        BadRequestError: The value is not an absolute URL.
    """
    url = parameters.get("fal_webhook")
    if url is None:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadRequestError(
            f"fal_webhook must be an absolute http:// or https:// URL, got {url!r}"
        )
    return url


def parse_flag(text: str) -> bool:
    """Return whether a flag in a header or query parameter is set."""
    return text.strip().lower() in _TRUE


def parse_max_retries(headers: Mapping[str, str], reason: RetryReason) -> int | None:
    """Return how often the caller allows a retry for this reason; ``None`` for the default."""
    if parse_flag(headers.get("x-fal-no-retry", "")):
        return 0
    config: object = decode_or_none(headers.get("x-fal-retry-config", "{}"))
    rule = cast("dict[str, Any]", config).get(reason) if isinstance(config, dict) else None
    retries = cast("dict[str, Any]", rule).get("retries") if isinstance(rule, dict) else None
    return retries if isinstance(retries, int) and retries >= 0 else None
