"""What the headers and parameters of a call, and the reply of a runner, mean to the queue."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async.emulator._replies import Reply

#: A start timeout must be longer than this many seconds.
_SHORTEST_START_TIMEOUT = 0.1
#: Runner replies that the queue takes for a trouble of the runner, not of the request.
_RUNNER_TROUBLE = frozenset({503, 504})

#: Seconds that a result is kept, and the size in bytes from which it is kept for the shorter time.
RETENTION = 3600.0
SHORT_RETENTION = 360.0
LARGE_RESULT = 10_000

_TRUE = frozenset({"1", "true", "yes"})


class BadRequestError(ValueError):
    """A platform header or parameter makes no sense."""


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


def wants_logs(parameters: Mapping[str, str]) -> bool:
    """Whether log lines were asked for."""
    return is_true(parameters.get("logs", ""))


def is_true(text: str) -> bool:
    """Whether a flag in a header or parameter is set."""
    return text.strip().lower() in _TRUE


def attempts(headers: Mapping[str, str], default: int) -> int:
    """How many times a runner may be tried."""
    if is_true(headers.get("x-fal-no-retry", "")):
        return 1
    config = _json_object(headers.get("x-fal-retry-config", ""))
    server_error = config.get("server_error")
    retries = server_error.get("retries") if isinstance(server_error, dict) else None
    return 1 + retries if isinstance(retries, int) and retries >= 0 else default


def is_worth_retrying(reply: Reply) -> bool:
    """Whether another runner might do better. What the app says in a header wins."""
    said = reply.header("x-fal-needs-retry")
    if said is not None:
        return is_true(said)
    body = reply.json() if reply.status == 502 else None
    if isinstance(body, dict) and body.get("error_type") == "runner_incomplete_response":
        return True
    return reply.status in _RUNNER_TROUBLE


def retention(reply: Reply) -> float:
    """Seconds that this result is kept."""
    return SHORT_RETENTION if len(reply.body) >= LARGE_RESULT else RETENTION


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
