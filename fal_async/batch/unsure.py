"""`UnsureInputs`: inputs for which a job may have been started, until that is decided."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import anyio

from fal_async._net.waiters import Waiter
from fal_async.batch.candidates import Decision
from fal_async.batch.entries import UNIDENTIFIED, Update
from fal_async.batch.errors import JournalError
from fal_async.batch.lookup import open_search
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.inputs import Item
    from fal_async.batch.journal import Journal
    from fal_async.batch.lookup import JobSearch

__all__ = ["UnsureInputs"]

_log = logging.getLogger("fal_async")

#: The least time between two searches, in seconds.
LOOK_INTERVAL: Final = 2.0
#: The least time between two searches while other jobs run, in times of the last one.
LOOK_PAUSE: Final = 4.0
#: The time between two searches while no other job runs, as a part of the time since the submit, or
#: of that until the decision is certain.
LOOK_SHARE: Final = 0.25


class UnsureInputs:
    """Inputs for which a job may have been started, until that is decided.

    Args:
        dispatcher: Asks the platform.
        journal: The journal, which is open.
        is_idle: Returns whether nothing but unsure inputs is left.
        oldest_start: Returns the time of the oldest submit whose job runs, in seconds since 1970.
        settle: Called with an input whose entry tells what to do next.
        report: Called with an input whose job the platform cannot tell.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        journal: Journal,
        is_idle: Callable[[], bool],
        oldest_start: Callable[[], float],
        settle: Callable[[Item], None],
        report: Callable[[Item], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._is_idle = is_idle
        self._oldest_start = oldest_start
        self._settle = settle
        self._report = report
        self._items: dict[str, Item] = {}
        self._by_application: dict[str, JobSearch] = {}
        self._changed = Waiter()
        self._ended_at = 0.0
        self._seconds = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        """Add an input."""
        self._items[item.key] = item

    def notify(self) -> None:
        """Check again whether a search is due."""
        self._changed.wake()

    async def settle_all(self) -> None:
        """Search until no input is unsure.

        Raises:
            JournalError: A decision is not durable.
        """
        while self._items:
            while (delay := self._delay()) > 0:
                self._changed = Waiter()
                await self._changed.wait(delay)
            await self._look()

    def _delay(self) -> float:
        """Return the time until the next search, in seconds.

        While other jobs run, a search waits until it can decide on the oldest input for certain.
        Otherwise its job may be listed at any time, and is expected soon after the submit, or just
        before that is certain.
        """
        oldest = next(iter(self._items.values()))
        search = self._by_application.get(oldest.application)
        if search is None:
            return 0.0
        since = anyio.current_time() - self._ended_at
        looked_at = time.time() - since
        listed_in = search.listed_by(oldest) - looked_at
        if self._is_idle():
            pause = LOOK_SHARE * min(listed_in, looked_at - oldest.submitted_by)
            return max(LOOK_INTERVAL, self._seconds, pause) - since
        return max(LOOK_INTERVAL, LOOK_PAUSE * self._seconds, listed_in) - since

    async def _look(self) -> None:
        """Ask the platform for the jobs of the inputs, unless the journal knows them by now."""
        began = anyio.current_time()
        await self._settle_known(list(self._items.values()))
        groups: defaultdict[str, list[Item]] = defaultdict(list)
        for item in self._items.values():
            groups[item.application].append(item)
        for application, items in groups.items():
            await self._apply(await self._search(application, items))
        self._ended_at = anyio.current_time()
        self._seconds = self._ended_at - began

    async def _search(self, application: str, items: list[Item]) -> list[Decision]:
        search = self._by_application.get(application)
        if search is None:
            search = open_search(self._dispatcher, self._journal, application)
            self._by_application[application] = search
        try:
            return await search.search(items, time.time() - self._oldest_start())
        except JournalError:
            raise
        except FalClientError as error:
            _log.warning("Cannot look up %d unsure jobs: %s", len(items), error)
            return [Decision(item, "unsure") for item in items]

    async def _apply(self, decisions: Iterable[Decision]) -> None:
        """Record decisions, unless another process was faster."""
        settled: list[Item] = []
        for decision in decisions:
            item = decision.item
            if decision.state == "unsure":
                del self._items[item.key]
                self._report(item)
                continue
            # The time of the search is not that of the job, so it does not count as its start.
            values: dict[str, Any] = {"tried_at": time.time(), "ended_at": None, "error": None}
            values |= {"state": decision.state, "request_id": decision.request_id}
            change = Update(item.key, item.attempts, values, states=UNIDENTIFIED)
            self._journal._commit_soon(change)
            settled.append(item)
        await self._settle_known(settled)

    async def _settle_known(self, items: list[Item]) -> None:
        """Settle the inputs whose next step the journal knows by now."""
        if not items:
            return
        await self._journal._flush()
        entries = await self._journal._find([item.key for item in items])
        for item in items:
            entry = item.entry = entries.get(item.key)
            is_same = entry is not None and entry.attempts == item.attempts
            if entry is None or not is_same or entry.state not in UNIDENTIFIED:
                del self._items[item.key]
                self._settle(item)
