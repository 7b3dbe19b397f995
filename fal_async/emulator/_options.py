"""Parsing of platform headers and query parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from fal_async.emulator._json import decode_or_none

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async.emulator._jobs import RetryReason

__all__ = []


#: A start timeout must be longer than this many seconds.
_SHORTEST_START_TIMEOUT = 0.1


_TRUE = frozenset({"1", "true", "yes"})


class BadRequestError(ValueError):
    """A header or parameter for the platform makes no sense."""


def start_timeout(headers: Mapping[str, str]) -> float | None:
    """Seconds within which the job must have started; the old name of the header loses.

    Raises:
        BadRequestError: It is not a number of seconds, or too short.
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
    if not _SHORTEST_START_TIMEOUT < seconds < math.inf:
        raise BadRequestError(f"{name} must be a number of seconds above {_SHORTEST_START_TIMEOUT}")
    return seconds


def max_queue_length(parameters: Mapping[str, str]) -> int | None:
    """How many requests may wait already.

    Raises:
        BadRequestError: It is not a whole number.
    """
    text = parameters.get("fal_max_queue_length")
    if text is None:
        return None
    if not text.isdecimal():
        raise BadRequestError("fal_max_queue_length must be a whole number")
    return int(text)


def is_true(text: str) -> bool:
    """Whether a flag in a header or parameter is set."""
    return text.strip().lower() in _TRUE


def retries_allowed(headers: Mapping[str, str], trouble: RetryReason) -> int | None:
    """How often the caller lets a trouble be met by another try; ``None`` if it does not say."""
    if is_true(headers.get("x-fal-no-retry", "")):
        return 0
    config = _json_object(headers.get("x-fal-retry-config", "{}")).get(trouble)
    retries = cast("dict[str, Any]", config).get("retries") if isinstance(config, dict) else None
    return retries if isinstance(retries, int) and retries >= 0 else None


def _json_object(text: str) -> dict[str, Any]:
    value = decode_or_none(text)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
