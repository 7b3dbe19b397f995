"""Log lines of calls at the level DEBUG, and the variable ``FAL_ASYNC_LOG``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from fal_async.errors import InvalidRequestError
from fal_async.hooks._events import AttemptFailed, CallEnded, ResponseStarted

if TYPE_CHECKING:
    from fal_async.hooks._events import Event

__all__ = ["configure_logging", "log_event"]

_log = logging.getLogger("fal_async")
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO}
_NUMBERS: Final = (
    "attempts",
    "retries",
    "events",
    "bytes_sent",
    "bytes_received",
    "seconds",
    "seconds_in_slot",
    "seconds_in_queue",
    "seconds_in_run",
    "billable_units",
)


def configure_logging(level: str) -> None:
    """Log to stderr from a level on, unless the program has configured a handler itself.

    Args:
        level: The value of ``FAL_ASYNC_LOG``: ``debug`` or ``info``.

    Raises:
        InvalidRequestError: The level is another one.
    """
    number = _LEVELS.get(level.strip().lower())
    if number is None:
        raise InvalidRequestError(f"FAL_ASYNC_LOG must be debug or info, got {level!r}")
    _log.setLevel(number)
    if not _log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        _log.addHandler(handler)


def log_event(event: Event) -> None:
    """Log each attempt and each call as one line with fields, a hook of its own.

    The lines contain neither keys nor arguments, outputs, queries or messages of apps.
    """
    call = event.call
    fields: dict[str, Any] = {
        "fal_call": call.name,
        "fal_call_id": call.id,
        "fal_application": call.application,
    }
    match event:
        case ResponseStarted():
            fields["fal_status_code"] = event.status_code
            outcome = str(event.status_code)
        case AttemptFailed():
            fields["fal_reason"] = event.reason
            outcome = event.reason
        case CallEnded():
            fields["fal_outcome"] = event.outcome
            fields["fal_request_id"] = event.request_id
            fields["fal_error"] = None if event.error is None else type(event.error).__name__
            fields |= {f"fal_{name}": getattr(event, name) for name in _NUMBERS}
            _log.debug(
                "%s %s in %.3f s (call %d, request %s, attempts: %d)",
                f"{call.name} of {call.application}" if call.application else call.name,
                event.outcome.replace("_", " "),
                event.seconds,
                call.id,
                event.request_id,
                event.attempts,
                extra=fields,
            )
            return
        case _:
            return
    fields["fal_operation"] = event.operation
    fields["fal_attempt"] = event.attempt
    fields["fal_seconds"] = event.seconds
    _log.debug(
        "%s: %s after %.3f s (call %d, attempt %d)",
        event.operation,
        outcome,
        event.seconds,
        call.id,
        event.attempt,
        extra=fields,
    )
