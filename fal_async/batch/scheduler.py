"""`Scheduler`: decides which input is executed next, and when no more are started."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import anyio

from fal_async._net.waiters import Waiter
from fal_async.batch.claims import set_attempt
from fal_async.batch.entries import COMPLETE, PENDING, SUCCEEDED, UNIDENTIFIED, Update
from fal_async.batch.executor import OTHER_PROCESS_DELAY, READING
from fal_async.batch.jobs import Again, ErrorFacts, Job, Stop, Unsettled
from fal_async.batch.plan import is_complete
from fal_async.batch.unsure import UnsureInputs
from fal_async.errors import FalClientError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from anyio.abc import TaskGroup

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.entries import Entry
    from fal_async.batch.executor import JobExecutor
    from fal_async.batch.files import FileSaver
    from fal_async.batch.inputs import Item
    from fal_async.batch.jobs import Outcome, RowChange, StopReason
    from fal_async.batch.journal import Journal
    from fal_async.batch.limits import FixedLimit
    from fal_async.batch.options import BatchOptions
    from fal_async.batch.spending import Spending

__all__ = ["Scheduler"]

_log = logging.getLogger("fal_async")

#: The number of inputs that wait for another job before the oldest of them gets it.
MAX_DEFERRED: Final = 100


class Scheduler:
    """Executes inputs: bounded, with later attempts after the first ones.

    Args:
        dispatcher: The dispatcher of the client.
        journal: The journal, which is open.
        options: The options of the batch.
        limit: The limit on the jobs in flight.
        executor: Executes an input.
        saver: Saves the files of outputs, or ``None``.
        spending: The costs.
        deliver: Called with each outcome, and with the change of its row in the output file.
        may_deliver: Returns whether the consumer accepts another outcome of an input.
        is_needed: Returns whether the output of a complete input is needed.

    Attributes:
        stopped: The reason for which no more jobs are started, or ``None``.
        error: The error that has stopped the batch, or ``None``.
        saving: The number of outcomes whose files are being saved.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        journal: Journal,
        options: BatchOptions,
        limit: FixedLimit,
        executor: JobExecutor,
        saver: FileSaver | None,
        spending: Spending,
        deliver: Callable[[Job, RowChange], None],
        may_deliver: Callable[[int], bool],
        is_needed: Callable[[Item], bool],
    ) -> None:
        self._dispatcher = dispatcher
        self._journal = journal
        self._options = options
        self._limit = limit
        self._executor = executor
        self._saver = saver
        self._spending = spending
        self._deliver = deliver
        self._may_deliver = may_deliver
        self._is_needed = is_needed
        self._group: TaskGroup | None = None
        self._changed = Waiter()
        self._input_scope = anyio.CancelScope()
        self._deferred: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()
        self._active: dict[str, Item] = {}
        self._in_flight: set[Item] = set()
        self._unsure = UnsureInputs(
            replace(dispatcher, policy=READING),
            journal,
            self._is_idle,
            self._oldest_start,
            self._go_on,
            self._report,
        )
        self._search_scope: anyio.CancelScope | None = None
        self.stopped: StopReason | None = None
        self.error: Exception | None = None
        self.saving: int = 0

    def notify(self) -> None:
        """Check again whether another job may start."""
        self._changed.wake()
        self._unsure.notify()

    def stop(self, reason: StopReason, error: Exception | None = None) -> None:
        """Start no more jobs. Jobs in flight are collected."""
        if self.stopped is None:
            self.stopped, self.error = reason, error
        elif error is not None and self.error is None:
            self.error = error
        self._input_scope.cancel()  # a slow source is not waited for
        if self._search_scope is not None:
            self._search_scope.cancel()
        self.notify()

    def abort(self) -> None:
        """End at once. Jobs in flight are left to the next run."""
        self.stop("requested")
        if self._group is not None:
            self._group.cancel_scope.cancel()

    async def run(self, inputs: AsyncGenerator[Item, None]) -> None:
        """Execute all inputs, until there are no more or the batch is stopped."""
        async with anyio.create_task_group() as group, aclosing(inputs) as items:
            self._group = group
            try:
                with self._input_scope:
                    while (item := await self._next(items)) is not None:
                        await self._dispatch(item)
            except Exception as error:  # noqa: BLE001 -- of the inputs; raised to the consumer
                self.stop("error", error)
            if self.stopped == "requested" and self._options.on_stop == "leave":
                deadline = anyio.current_time() + self._options.grace
                await self._executor.finish_submits()
                group.cancel_scope.deadline = deadline
            elif self.stopped == "requested" and self._options.on_stop == "cancel":
                await self._executor.cancel_all()

    async def _next(self, items: AsyncGenerator[Item, None]) -> Item | None:
        """Return the input to execute next: a new one, or one that needs another attempt."""
        while self.stopped is None:
            is_due = bool(self._deferred) and self._deferred[0][0] <= anyio.current_time()
            if is_due and (self._options.ordered or len(self._deferred) >= MAX_DEFERRED):
                return heapq.heappop(self._deferred)[2]
            item = await anext(items, None)
            if item is not None:
                return item
            if is_due:
                return heapq.heappop(self._deferred)[2]
            if not self._active and not self._deferred:
                return None
            self._changed = Waiter()
            delay = self._deferred[0][0] - anyio.current_time() if self._deferred else None
            await self._changed.wait(delay)
        return None

    async def _dispatch(self, item: Item) -> None:
        """Execute an input in a task of its own, once it may start."""
        if item.key in self._active and item is not self._active[item.key]:
            self._active[item.key].repeats.append(item)
            return
        if item.repeats_earlier and item.entry is None and self._options.duplicates == "once":
            await self._journal._flush()
            await self._reload(item)
        entry = item.entry
        is_known = entry is not None and is_complete(item, entry, self._options, self._journal)
        await self._wait_until_free(item, is_complete=is_known)
        if self.stopped is not None and not is_known:
            self._active.pop(item.key, None)
            return
        self._active[item.key] = item
        assert self._group is not None  # noqa: S101 -- set by `run`
        if entry is not None and is_known:
            await self._resume(item, entry)
            return
        self._start(item)

    def _start(self, item: Item) -> None:
        """Execute an input in a task of its own."""
        assert self._group is not None  # noqa: S101 -- set by `run`
        self._limit.in_flight += 1
        self._in_flight.add(item)
        self._group.start_soon(self._execute, item)

    async def _wait_until_free(self, item: Item, *, is_complete: bool) -> None:
        """Wait until the limits, the consumer and the budget permit another job."""
        is_started = item.entry is not None and item.entry.state in PENDING
        while self.stopped is None:
            accepts = self._may_deliver(item.index)
            if is_complete and accepts:
                return
            if not is_complete and accepts and self._limit.is_free(time.monotonic()):
                reserved = self._limit.in_flight + len(self._unsure)  # each may have a job
                if is_started or self._spending.can_start(reserved):
                    return
                if reserved == 0:
                    self.stop("budget")
                    return
            self._changed = Waiter()
            is_full = self._limit.in_flight >= self._limit.value
            await self._changed.wait(None if is_full else 0.1)  # a pause ends by itself

    async def _execute(self, item: Item) -> None:
        try:
            outcome = await self._step(item)
        except (FalClientError, OSError) as error:
            outcome = Stop(error if isinstance(error, FalClientError) else None)
            self.stop("error", error)
        finally:
            self._limit.in_flight -= 1
            self._in_flight.discard(item)
            self.notify()
        if isinstance(outcome, Job):
            self._spending.add(outcome)  # it is not in flight any more
            await self._settle(item, outcome)
        elif isinstance(outcome, Again):
            if outcome.is_foreign:
                await self._reload(item)
            self._defer(item, outcome.delay)
        elif isinstance(outcome, Unsettled):
            await self._settle_unsure(item)
        else:
            self._active.pop(item.key, None)
            if outcome.error is not None:
                self.stop("error", outcome.error)
        self.notify()

    async def _step(self, item: Item) -> Outcome:
        """Do the next step for an input, by its state."""
        entry = item.entry
        if entry is None or entry.state in {"planned", *COMPLETE}:
            item.attempts, item.started_at = entry.attempts if entry is not None else 0, 0.0
            is_complete = entry is not None and entry.state in SUCCEEDED
            if entry is not None and is_complete and not item.is_changed:
                return await self._collect(item, entry)  # the journal keeps no outputs
            return await self._executor.start(item)
        set_attempt(item, entry)
        if entry.state == "running":
            return await self._collect(item, entry)
        if self._is_earlier(entry):
            live = await self._journal._read(lambda store: store.live_runs())
            if entry.run in live and entry.state == "submitting":
                return Again(OTHER_PROCESS_DELAY, is_foreign=True)
            # The process may have ended since the entry was read, and have recorded its outcome.
            await self._reload(item)
            if item.entry != entry:
                return Again(is_foreign=True)
            item.resumed = True
        return Unsettled()

    async def _collect(self, item: Item, entry: Entry) -> Outcome:
        set_attempt(item, entry)
        item.resumed = self._is_earlier(entry)
        ids = {"application": entry.application, "request_id": str(entry.request_id)}
        handle = self._executor.attach(entry.handle or ids)
        return await self._executor.collect(item, handle)

    def _is_earlier(self, entry: Entry) -> bool:
        """Return whether another run has started the job of an entry."""
        return self._journal._run is None or entry.run != self._journal._run.number

    def _defer(self, item: Item, delay: float = 0.0) -> None:
        due = anyio.current_time() + delay
        heapq.heappush(self._deferred, (due, next(self._numbers), item))
        self.notify()

    async def _reload(self, *items: Item) -> None:
        entries = await self._journal._find([item.key for item in items])
        for item in items:
            item.entry = entries.get(item.key)

    async def _settle(self, item: Item, job: Job) -> None:
        """Save the files of an outcome and deliver it, also for inputs that repeat this one."""
        if job.ok and self._saver is not None:
            self.saving += 1
            try:
                job = await self._saver.save(job)
            finally:
                self.saving -= 1
                self.notify()
        self._active.pop(item.key, None)
        change: RowChange = "replaced" if item.is_written else "added"
        self._deliver(job, change)
        for repeat in item.repeats:
            shared: dict[str, Any] = {"index": repeat.index, "row": repeat.row, "units": None}
            self._deliver(replace(job, resumed=True, cost=None, **shared), change)

    async def _resume(self, item: Item, entry: Entry) -> None:
        """Deliver the outcome that the journal has of an input."""
        is_download = entry.error is not None and entry.error.get("stage") == "download"
        ok = entry.state in SUCCEEDED or (is_download and self._saver is not None)
        body: bytes | None = None
        if ok and (self._is_needed(item) or self._saver is not None):
            body = await self._journal._read(lambda store: store.output(entry.key))
        job = item.make_known_job(
            entry, self._dispatcher, ok=ok, body=body, resumed=self._is_earlier(entry)
        )
        if (
            ok
            and self._saver is not None
            and not (entry.state in SUCCEEDED and await self._saver.has_saved(job))
        ):
            assert self._group is not None  # noqa: S101 -- set by `run`
            self._group.start_soon(self._settle, item, job)
            return
        self._active.pop(item.key, None)
        self._deliver(job, "none" if item.is_written else "added")

    async def _settle_unsure(self, item: Item) -> None:
        """Treat an input for which a job may have been started as the options say."""
        treatment = self._options.unsure
        if treatment == "again" and item.attempts < self._options.attempts:
            self._executor.again += 1
            await self._journal._flush()
            await self._reload(item)
            if item.entry is not None and item.entry.state != "planned":
                # No job is known, so that another one is started.
                change = Update(item.key, item.attempts, {"state": "planned"}, states=PENDING)
                await self._journal._commit(change)
                await self._reload(item)
            self._defer(item)
        elif treatment == "look":
            self._unsure.add(item)
            if self._search_scope is None and self.stopped is None:
                assert self._group is not None  # noqa: S101 -- set by `run`
                self._search_scope = anyio.CancelScope()
                self._group.start_soon(self._search, self._search_scope)
        else:
            self._report(item)

    async def _search(self, scope: anyio.CancelScope) -> None:
        """Settle unsure inputs until there are none, or the batch is stopped."""
        try:
            with scope:
                await self._unsure.settle_all()
        except (FalClientError, OSError) as error:
            self.stop("error", error)
        finally:
            self._search_scope = None

    def _is_idle(self) -> bool:
        """Return whether nothing but unsure inputs is left, as far as inputs were read."""
        return len(self._active) == len(self._unsure) and not self._deferred

    def _oldest_start(self) -> float:
        """Return the time of the oldest submit whose job runs; now, if none does."""
        now = time.time()
        return min((item.started_at or now for item in self._in_flight), default=now)

    def _go_on(self, item: Item) -> None:
        """Execute an input that is no longer unsure: at once, if it has a job."""
        if item.entry is not None and item.entry.state == "running":
            self._start(item)
        else:
            self._defer(item)

    def _report(self, item: Item) -> None:
        """Deliver an unsure input."""
        known = item.entry.error if item.entry is not None else None
        facts = ErrorFacts(
            type="SubmitOutcomeUnknownError",
            message="a job may have been started, and its id is unknown",
            stage="submit",
            final=False,
        )
        facts = facts if known is None else ErrorFacts.from_dict({**known, "final": False})
        values: dict[str, Any] = {"state": "unsure", "error": facts.to_dict()}
        self._journal._commit_soon(Update(item.key, item.attempts, values, states=UNIDENTIFIED))
        self._active.pop(item.key, None)
        job = item.make_job(ok=None, error=facts, attempts=item.attempts, resumed=item.resumed)
        self._deliver(job, "replaced" if item.is_written else "added")
        self.notify()
