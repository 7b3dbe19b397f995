"""Claims of inputs in the journal: made, refreshed, and withdrawn by a cancellation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from fal_async.batch.entries import Begin, Update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async.batch.entries import Entry
    from fal_async.batch.inputs import Item
    from fal_async.batch.journal import Journal

__all__ = ["claim", "is_withdrawn", "refresh_claim", "set_attempt", "withdraw"]

#: The time after which a claim is refreshed before a request is sent, in seconds.
CLAIM_LIFE: Final = 60.0
#: The longest time from a claim to the arrival of its request, if nothing tells, in seconds.
MAX_SUBMIT_TIME: Final = 600.0
#: The error of an input whose job is being cancelled, so that another one is started later.
_WITHDRAWN: Final[Mapping[str, Any]] = {
    "type": "JobCancelledError",
    "message": "the job was cancelled with its batch",
    "started": True,
    "final": False,
}


async def claim(journal: Journal, item: Item, *, enough: float = 1) -> bool:
    """Record durably that a job is about to be started; return false if it was already.

    Args:
        journal: The journal.
        item: The input.
        enough: The number of claims at which the write to the disk waits for no more.
    """
    now = time.time()
    change = Begin(item.key, item.application, item.index, item.digest, now, item.entry)
    if not await journal._commit(change, enough=enough):
        return False
    item.attempts, item.started_at, item.resumed = item.attempts + 1, now, False
    item.is_withdrawn = False
    return True


async def refresh_claim(journal: Journal, item: Item) -> bool:
    """Record the time once more if a request is sent long after its claim.

    A search for the job of a killed process relies on that time.

    Returns:
        Whether the journal still has the claim.
    """
    now = time.time()
    if now - item.started_at < CLAIM_LIFE:
        return True
    change = Update(item.key, item.attempts, {"tried_at": now}, states=("submitting",))
    item.started_at = now
    return await journal._commit(change)


def set_attempt(item: Item, entry: Entry) -> None:
    """Set the attempt of an input, and its times, to those of its entry.

    The end of a submit is unknown if its process was killed.
    """
    item.attempts, item.started_at = entry.attempts, entry.tried_at
    item.is_withdrawn = is_withdrawn(entry)
    if entry.state == "unsure" and entry.ended_at is not None:
        item.submitted_by = entry.ended_at
    else:
        item.submitted_by = min(time.time(), entry.tried_at + MAX_SUBMIT_TIME)


def withdraw(key: str, attempts: int) -> Update:
    """Return the change that records that a job is about to be cancelled.

    The job may end before that, so the input keeps it until its outcome is known.

    Args:
        key: The key of the input.
        attempts: The number of jobs that were started for it.
    """
    return Update(key, attempts, {"error": _WITHDRAWN}, states=("running",))


def is_withdrawn(entry: Entry) -> bool:
    """Return whether another job is started for an input if its job turns out to be cancelled."""
    return entry.state == "running" and entry.error == _WITHDRAWN
