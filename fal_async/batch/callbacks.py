"""Callbacks of the jobs of a batch: URLs, outcomes in the journal, and the wait for them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import anyio

from fal_async._net.background import spawn
from fal_async.batch.claims import is_withdrawn
from fal_async.batch.entries import PENDING, Update, encode_output
from fal_async.batch.errors import JournalError
from fal_async.batch.jobs import Again, ErrorFacts
from fal_async.errors import FalClientHTTPError, JobCancelledError, UnknownJobError

if TYPE_CHECKING:
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.entries import Entry
    from fal_async.batch.inputs import Item
    from fal_async.batch.jobs import Job
    from fal_async.batch.journal import Journal
    from fal_async.batch.options import BatchOptions

__all__ = ["CallbackWaiter", "callback_url", "find_pending", "record_outcome"]

#: The least time after a submit at which a job without a callback is asked for, in seconds.
MIN_PATIENCE: Final = 60.0
#: The time between two looks into the journal, in seconds.
POLL_INTERVAL: Final = 0.25
#: The names of the key and of the attempt in the query of a URL.
_KEY: Final = "k"
_ATTEMPT: Final = "n"


def callback_url(webhook_url: str, key: str, attempt: int) -> str:
    """Return the URL to which the platform sends the outcome of a job.

    Args:
        webhook_url: The URL of the receiver.
        key: The key of the input.
        attempt: The number of the job among those of the input.
    """
    parts = urlsplit(webhook_url)
    own = urlencode({_KEY: key, _ATTEMPT: attempt})
    return urlunsplit(parts._replace(query=f"{parts.query}&{own}" if parts.query else own))


async def find_pending(journal: Journal, query: str, request_id: str) -> Entry | None:
    """Return the entry of the input whose outcome a callback brings.

    Args:
        journal: The journal.
        query: The query of the URL, which is not signed.
        request_id: The id of the job, which is.

    Returns:
        The entry; ``None`` if the callback changes nothing, such as a repeated one.

    Raises:
        UnknownJobError: The journal does not have the job.
    """
    fields = parse_qs(query)
    key, attempt = fields.get(_KEY, [""])[-1], fields.get(_ATTEMPT, [""])[-1]
    # In this order, since the batch may record the job of this input in between.
    is_known = bool(await journal._read(lambda store: store.known_jobs([request_id])))
    entry = (await journal._find([key])).get(key)
    if entry is None or not attempt.isdecimal() or entry.attempts < int(attempt):
        raise UnknownJobError(f"the journal has no input of the job {request_id}")
    if entry.attempts != int(attempt) or entry.state not in PENDING:
        return None
    # The query could be that of another callback: a job that is known belongs to its own input.
    is_own = not is_known if entry.request_id is None else entry.request_id == request_id
    return entry if is_own else None


async def record_outcome(journal: Journal, entry: Entry, request_id: str, outcome: object) -> None:
    """Record the outcome of a job durably, unless the journal has it.

    Args:
        journal: The journal.
        entry: The entry of the input.
        request_id: The id of the job.
        outcome: The output of the job, or its error.
    """
    values: dict[str, Any] = {"request_id": request_id, "ended_at": time.time()}
    output: bytes | None = None
    if isinstance(outcome, FalClientHTTPError):
        facts = ErrorFacts.from_error(outcome)
        facts = replace(facts, final=not facts.retryable)
        values |= {"state": "failed", "error": facts.to_dict()}
        if isinstance(outcome, JobCancelledError) and is_withdrawn(entry):
            values |= {"state": "planned", "error": None}
    else:
        units, cost = getattr(outcome, "billable_units", None), getattr(outcome, "cost", None)
        values |= {"state": "ended", "error": None, "units": units, "cost": cost}
        output = encode_output(outcome) if journal.keep_outputs else None
    await journal._commit(Update(entry.key, entry.attempts, values, output, states=PENDING))


class CallbackWaiter:
    """Waits until a receiver has recorded outcomes in the journal.

    Args:
        dispatcher: Downloads the files of outputs.
        journal: The journal, which is open.
        options: The options of the batch.
    """

    def __init__(self, dispatcher: Dispatcher, journal: Journal, options: BatchOptions) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._options = options
        self._changed: dict[str, anyio.Event] = {}
        self._recorded: dict[str, Entry] = {}
        self._longest: float | None = None
        self._is_polling = False

    async def wait(self, item: Item) -> Job | Again | None:
        """Wait for the outcome of a job, for up to twice the time that the longest one took.

        Returns:
            The outcome; ``None`` if the platform has to be asked for it.
        """
        if self._longest is None:
            self._longest = await self._journal._read(lambda store: store.longest_job())
        patience = max(MIN_PATIENCE, 2 * self._longest)
        changed = self._changed[item.key] = anyio.Event()
        if not self._is_polling:
            self._is_polling = True
            spawn(self._poll)
        try:
            with anyio.move_on_after(max(0.0, item.started_at + patience - time.time())):
                await changed.wait()
        finally:
            self._changed.pop(item.key, None)
        entry = self._recorded.pop(item.key, None)
        return None if entry is None else await self._make_outcome(item, entry)

    async def _make_outcome(self, item: Item, entry: Entry) -> Job | Again | None:
        item.entry = entry
        if entry.state == "failed":
            may_start = entry.attempts < self._options.attempts
            job = item.make_known_job(
                entry, self._dispatcher, ok=False, body=None, resumed=item.resumed
            )
            if job.error is None or (may_start and not job.error.final):
                return Again()
            return replace(job, error=replace(job.error, final=True))
        body = await self._journal._read(lambda store: store.output(item.key))
        if body is None:  # the journal keeps no outputs, or knows that the result is gone
            return None
        self._longest = max(self._longest or 0.0, (entry.ended_at or 0.0) - entry.tried_at)
        return item.make_known_job(
            entry, self._dispatcher, ok=True, body=body, resumed=item.resumed
        )

    def give_up(self) -> None:
        """Ask the platform for all outcomes: those of cancelled jobs may have no callbacks."""
        for changed in self._changed.values():
            changed.set()

    async def _poll(self) -> None:
        """Look into the journal for as long as there are jobs that are waited for."""
        try:
            while self._changed:
                entries = await self._journal._find(list(self._changed))
                for key, entry in entries.items():
                    changed = self._changed.get(key)
                    if changed is not None and entry.state not in PENDING:
                        self._recorded[key] = entry
                        changed.set()
                await anyio.sleep(POLL_INTERVAL)
        except JournalError:  # the next change of the batch raises it
            self.give_up()
        finally:
            self._is_polling = False
