"""Search among the requests that the platform lists: for jobs without ids, and lost outputs."""

from __future__ import annotations

import logging
import time
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import anyio

from fal_async._client.result import make_result
from fal_async._net.event_loops import PerLoop
from fal_async._platform.requests import MAX_PAGE, AsyncRequests
from fal_async._protocol.response import Output
from fal_async.batch.candidates import CLOCK_MARGIN, Candidates
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fal_async._core.platform import RequestInfo
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.candidates import Decision
    from fal_async.batch.entries import Entry
    from fal_async.batch.inputs import Item
    from fal_async.batch.journal import Journal
    from fal_async.batch.journal_store import JournalStore

__all__ = ["JobSearch", "find_output", "open_search"]

_log = logging.getLogger("fal_async")

#: The time after its end at which a request is listed for certain, in seconds.
LISTING_DELAY: Final = 10.0
#: The number of listed jobs from which they alone tell how long a job takes.
MIN_LISTED: Final = 100


class _Round:
    """A search of the inputs of several calls, which has not begun or is under way."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.longest_running = 0.0
        self.result: list[Decision] | None = None


class JobSearch:
    """Searches for the jobs of unsure inputs of one endpoint, among the requests of the account.

    The platform lists a request once it has ended, if not before. So a job that is not listed was
    not started, if its submit is longer ago than the longest job takes. Only the times about the
    submits are read: what is decided is not read again.

    Args:
        dispatcher: The dispatcher of the client.
        journal: The journal, which is open.
        application: The endpoint id.
    """

    def __init__(self, dispatcher: Dispatcher, journal: Journal, application: str) -> None:
        self._requests = AsyncRequests(dispatcher)
        self._journal = journal
        self._application = application
        self._lock = anyio.Lock()
        self._next = _Round()
        self._listed = 0
        self._longest_listed = 0.0
        self._longest_other = 0.0

    @property
    def longest_job(self) -> float:
        """The longest time from a submit to the end of its job, in seconds."""
        return max(self._longest_listed, self._longest_other)

    def listed_by(self, item: Item) -> float:
        """Return the time at which the job of an input is listed for certain, if there is one."""
        return item.submitted_by + self.longest_job + LISTING_DELAY

    async def search(self, items: Sequence[Item], longest_running: float) -> list[Decision]:
        """Search for the jobs of inputs, and return the decisions on them.

        An input on which no decision is possible yet is missing. Calls during a search share the
        next one.

        Args:
            items: The inputs.
            longest_running: The time since the submit of the oldest job that runs, in seconds.

        Raises:
            FalClientError: The platform cannot be asked.
        """
        shared = self._next
        shared.items += items
        shared.longest_running = max(shared.longest_running, longest_running)
        async with self._lock:
            if shared.result is None:
                if shared is self._next:
                    self._next = _Round()
                shared.result = await self._search(shared.items, shared.longest_running)
        own = set(items)
        return [each for each in shared.result if each.item in own]

    async def _search(self, items: Sequence[Item], longest_running: float) -> list[Decision]:
        since = time.time()
        self._longest_other = longest_running
        if self._listed < MIN_LISTED:
            in_journal = await self._journal._read(lambda store: store.longest_job())
            self._longest_other = max(longest_running, in_journal)
        candidates = Candidates(items)
        may_end = True
        for start, end in self._windows(items, since):
            async with aclosing(self._read(start, end)) as requests:
                async for request in requests:
                    candidates.add(request)
                    if may_end and candidates.are_enough:
                        decisions = await self._resolve(items, candidates, 0.0)
                        if len(decisions) == len(items):
                            return decisions
                        may_end = False  # some belong to other inputs
        return await self._resolve(items, candidates, since)

    def _windows(self, items: Sequence[Item], now: float) -> list[tuple[float, float | None]]:
        """Return the times to read, which do not overlap; ``None`` is now.

        A window lasts until its jobs have ended, whichever of its times the platform filters by.
        """
        windows: list[tuple[float, float]] = []
        for item in sorted(items, key=lambda item: item.started_at):
            start, end = item.started_at - CLOCK_MARGIN, self.listed_by(item) + CLOCK_MARGIN
            if windows and start <= windows[-1][1]:
                start, end = windows[-1][0], max(end, windows.pop()[1])
            windows.append((start, end))
        return [(start, end if end < now else None) for start, end in windows]

    async def _read(self, start: float, end: float | None) -> AsyncGenerator[RequestInfo, None]:
        """List the requests of a window, and learn how long they took."""
        listing = self._requests.list(
            self._application,
            start=datetime.fromtimestamp(start, UTC),
            end=None if end is None else datetime.fromtimestamp(end, UTC),
            limit=MAX_PAGE,
            expand_payloads=True,
        )
        async with aclosing(aiter(listing)) as requests:
            async for request in requests:
                if request.status_code == 200 and request.sent_at and request.ended_at:
                    self._listed += 1
                    seconds = (request.ended_at - request.sent_at).total_seconds()
                    self._longest_listed = max(self._longest_listed, seconds)
                yield request

    async def _resolve(
        self, items: Sequence[Item], candidates: Candidates, since: float
    ) -> list[Decision]:
        """Decide on inputs, by the jobs that are known and the requests that were listed.

        Args:
            items: The inputs.
            candidates: The requests.
            since: The time at which the first of all requests was read; 0 if not all were.
        """
        request_ids, keys = candidates.request_ids, {item.key for item in items}

        def read(store: JournalStore) -> tuple[list[Entry], set[str]]:
            if not request_ids:
                return [], set()
            live = store.live_runs()
            # In this order: a submit that ends in between is in one of them.
            submitting = [
                entry
                for entry in store.entries("submitting")
                if entry.run in live and entry.key not in keys
            ]
            return submitting, store.known_jobs(request_ids)

        await self._journal._flush()
        submitting, taken = await self._journal._read(read)
        return candidates.resolve(taken, submitting, lambda item: self.listed_by(item) <= since)


#: The searches that are used, by client, journal and endpoint: calls of `once` share them.
_shared: PerLoop[WeakValueDictionary[tuple[object, ...], JobSearch]] = PerLoop(
    WeakValueDictionary[tuple[object, ...], JobSearch]
)


def open_search(dispatcher: Dispatcher, journal: Journal, application: str) -> JobSearch:
    """Return the search for jobs of an endpoint that all uses of a client and a journal share."""
    account = id(dispatcher.resources), id(dispatcher.credentials), dispatcher.hosts
    key = (*account, id(journal), application)
    search = _shared.get().get(key)
    if search is None:
        search = _shared.get()[key] = JobSearch(dispatcher, journal, application)
    return search


async def find_output(dispatcher: Dispatcher, application: str, request_id: str) -> Any:
    """Look up the output of a job whose result has expired.

    Args:
        dispatcher: The dispatcher of the client.
        application: The endpoint id.
        request_id: The id of the job.

    Returns:
        The output; ``None`` if the account does not store it, the job has failed, or the platform
        cannot be asked.
    """
    listing = AsyncRequests(dispatcher).list(
        application, request_ids=[request_id], expand_payloads=True
    )
    try:
        requests = [request async for request in listing]
    except FalClientError as error:
        _log.warning("Cannot look up the expired result of %s: %s", request_id, error)
        return None
    for request in requests:
        if request.request_id == request_id and request.status_code == 200:
            output: Any = make_result(Output(value=request.output), request_id=request_id)
            if isinstance(request.output, dict):
                output._dispatcher = dispatcher
            return output
    return None
