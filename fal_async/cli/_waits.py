"""`WaitReasons`: a hook that names the failures for which a command waits and tries again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fal_async.cli._errors import write_note
from fal_async.hooks import AttemptFailed, ResponseStarted, RetryScheduled

if TYPE_CHECKING:
    from fal_async.hooks import Event

__all__ = ["WaitReasons"]

#: The statuses of rejected submits that a batch repeats.
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500


class WaitReasons:
    """A hook that writes a line to stderr for each reason of a failure, when it first occurs."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Write the reason of a failure that is new."""
        reason = _reason(event)
        if reason is not None and reason not in self._known:
            self._known.add(reason)
            write_note(f"waiting: {reason}")


def _reason(event: Event) -> str | None:
    """Return the reason of a failure after which the request is repeated, or ``None``."""
    if isinstance(event, AttemptFailed):
        return event.reason
    if isinstance(event, RetryScheduled) and event.reason.isdecimal():
        return f"HTTP {event.reason} of {event.operation}"
    if isinstance(event, ResponseStarted) and event.operation == "submit":  # repeated by the batch
        status = event.status_code
        if status == _TOO_MANY or status >= _SERVER_ERROR:
            return f"HTTP {status} of {event.operation}"
    return None
