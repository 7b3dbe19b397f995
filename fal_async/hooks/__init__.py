"""Hooks: functions that receive the events of calls, for logs, metrics, traces and progress.

`AsyncClient` takes hooks as an argument, and `use` adds some for a block. A hook is called with
each `Event`. A sync hook is called at once. An async hook runs in the background, in the order of
the events. Exceptions of hooks change nothing. The first of each type that a hook raises is logged
as an error, later ones at the level DEBUG.

Example:
    >>> def report(event: Event) -> None:
    ...     if isinstance(event, CallEnded):
    ...         print(event.call.name, event.outcome, event.attempts)
    >>> async def main() -> None:
    ...     async with fal_async.AsyncClient(hooks=report) as client:
    ...         await client.run("demo/echo", {"prompt": "a cat"})
    >>> anyio.run(main)
    run succeeded 1
"""

from __future__ import annotations

from fal_async._core.annotations import make_resolvable
from fal_async._core.hooks import use
from fal_async.hooks._events import (
    AttemptFailed,
    AttemptStarted,
    Call,
    CallEnded,
    CallStarted,
    DownloadProgress,
    Event,
    Hook,
    Outcome,
    ResponseStarted,
    RetryScheduled,
    SlotAcquired,
    StatusChanged,
    StreamEventReceived,
    TracingHook,
    UploadProgress,
    WaitingForSlot,
)

__all__ = [
    "AttemptFailed",
    "AttemptStarted",
    "Call",
    "CallEnded",
    "CallStarted",
    "DownloadProgress",
    "Event",
    "Hook",
    "Outcome",
    "ResponseStarted",
    "RetryScheduled",
    "SlotAcquired",
    "StatusChanged",
    "StreamEventReceived",
    "TracingHook",
    "UploadProgress",
    "WaitingForSlot",
    "use",
]

for _public in [globals()[_name] for _name in __all__]:
    make_resolvable(_public)
