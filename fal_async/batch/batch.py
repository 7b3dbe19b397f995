"""`Batch`: many jobs, each started once, as they complete."""

from __future__ import annotations

import math
import os
import time
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Self

import anyio

from fal_async._core.annotations import set_module
from fal_async._net.background import spawn
from fal_async._net.threads import Work, run_in_thread
from fal_async._platform.models import AsyncModels
from fal_async.batch.display import report_progress
from fal_async.batch.entries import SUCCEEDED, Note
from fal_async.batch.errors import BatchStoppedError
from fal_async.batch.executor import JobExecutor
from fal_async.batch.files import FileSaver
from fal_async.batch.inputs import count_rows
from fal_async.batch.jobs import BatchSummary, Progress, StoredJob
from fal_async.batch.journal import Journal
from fal_async.batch.limits import MAX_QUEUED, AdaptiveLimit, FixedLimit, QueueLimit
from fal_async.batch.options import Budget
from fal_async.batch.output_file import OutputFile
from fal_async.batch.paths import check_unique
from fal_async.batch.plan import Plan, make_factory
from fal_async.batch.scheduler import Scheduler
from fal_async.batch.spending import FailureWindow, Rate, Spending
from fal_async.errors import FalClientError, InvalidRequestError

if TYPE_CHECKING:
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._net.background import BackgroundTask
    from fal_async.batch.inputs import Inputs, Item
    from fal_async.batch.jobs import Job, RowChange
    from fal_async.batch.options import BatchOptions

__all__ = ["Batch"]


@set_module("fal_async")
class Batch:
    """Many jobs, which run while the context is entered; see `AsyncClient.batch`.

    Iterate over it for the outcomes, in the order in which the jobs end, or call `run`. Leaving the
    context early stops the batch gracefully.

    Example:
        >>> async def main() -> None:
        ...     rows = [{"prompt": "a cat"}, {"prompt": "a fox"}]
        ...     async with fal_async.AsyncClient() as client:
        ...         async with client.batch("demo/echo", rows) as batch:
        ...             summary = await batch.run()
        ...     print(summary.ok)
        >>> anyio.run(main)
        2
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        inputs: Inputs,
        journal: Journal | str | os.PathLike[str] | None,
        options: BatchOptions,
    ) -> None:
        self._dispatcher = dispatcher
        self._inputs = inputs
        self._options = options
        self._owns_journal = not isinstance(journal, Journal)
        is_received = options.wait == "webhook"
        if is_received and journal is None:
            raise InvalidRequestError("journal must be given with wait='webhook', for its receiver")
        self._journal = (
            journal
            if isinstance(journal, Journal)
            else Journal(
                ":memory:" if journal is None else journal, shared=True if is_received else None
            )
        )
        if options.output is not None and self._journal.shared:
            raise InvalidRequestError(
                "output must be None with a shared journal, since several processes would write "
                "it: export the journal at the end"
            )
        source = inputs if isinstance(inputs, str | os.PathLike) else None
        files = {"input": source, "output": options.output, "journal": self._journal.path}
        check_unique(files)
        self._saver = (
            None if options.save is None else FileSaver(dispatcher, self._journal, options.save)
        )
        self._limit = _select_limit(options)
        self._factory = make_factory(options)
        self._summary = BatchSummary()
        self._failures = FailureWindow(options.stop_after)
        self._waiting: dict[int, tuple[Job, RowChange]] = {}
        self._next_index = 0
        self._ready = 0
        self._is_consumed = True
        self._total: int | None = None
        self._task: BackgroundTask | None = None
        self._scheduler: Scheduler
        self._executor: JobExecutor
        self._spending: Spending
        self._rate: Rate
        self._output: OutputFile | None = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Batch of {self._options.application!r}: {self._summary.done} inputs done>"

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise InvalidRequestError("this batch has been started: make another one")
        await self._journal._open()
        try:
            await self._prepare()
        except BaseException:
            with anyio.CancelScope(shield=True):
                try:
                    await self._close_files()
                finally:
                    await self._close_journal()
            raise
        self._send, self._jobs = anyio.create_memory_object_stream["Job"](math.inf)
        self._started_at = time.monotonic()
        self._task = spawn(self._run, grace_period=self._options.grace + 5.0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def _prepare(self) -> None:
        """Read the totals, the price and the output file before anything is sent."""
        options, journal = self._options, self._journal
        self._total = await run_in_thread(lambda: count_rows(self._inputs), Work.FILES)
        earlier = await journal._read(lambda store: store.summary())
        paid = sum(earlier.states.get(state, 0) for state in SUCCEEDED)
        price = await self._find_price()
        if options.budget is not None and price is None:
            raise InvalidRequestError(
                "price must be given with a budget: the platform names no price for the endpoint"
            )
        if price is not None:
            await self._record_price(price)
        self._spending = Spending(
            options.budget, price, earlier.cost, 0 if earlier.cost is None else paid
        )
        self._executor = JobExecutor(
            self._dispatcher,
            journal,
            options,
            self._limit,
            lambda: self._scheduler.stopped is not None,
        )
        self._executor.price = None if options.price is None else price
        self._rate = Rate(time.monotonic())
        self._scheduler = Scheduler(
            self._dispatcher,
            journal,
            options,
            self._limit,
            self._executor,
            self._saver,
            self._spending,
            self._deliver,
            self._may_deliver,
            self._is_needed,
        )
        if options.output is not None:
            self._output = OutputFile(options.output, journal)
            await self._output.open()

    async def _find_price(self) -> Decimal | None:
        """Return the price of a unit; ``None`` if the platform does not name one."""
        options = self._options
        if options.price is not None:
            return Decimal(str(options.price))
        if callable(options.application):
            return None
        try:
            prices = await AsyncModels(self._dispatcher).prices(options.application)
        except FalClientError:
            return None
        price = prices.get(options.application)
        return None if price is None else price.unit_price

    async def _record_price(self, price: Decimal) -> None:
        """Record the price of a unit, and note in the summary if it has changed."""
        name = f"price {self._options.application}"
        known = await self._journal._read(lambda store: store.note(name))
        if known is not None and Decimal(known) != price:
            self._summary.earlier_price = Decimal(known)
        if known is None or self._summary.earlier_price is not None:
            self._journal._commit_soon(Note(name, str(price)))

    async def _run(self) -> None:
        plan = Plan(self._inputs, self._factory, self._journal, self._options, self._saver)
        try:
            async with anyio.create_task_group() as group:
                if progress := self._options.progress:
                    budget = self._options.budget
                    group.start_soon(
                        report_progress,
                        lambda: self.progress,
                        progress if callable(progress) else None,
                        budget.amount if isinstance(budget, Budget) else budget,
                    )
                await self._scheduler.run(plan.items())
                group.cancel_scope.cancel()
            for index in sorted(self._waiting):  # behind inputs that were not started
                self._pass_on(*self._waiting.pop(index))
        except Exception as error:  # noqa: BLE001 -- raised to the consumer
            self._error = error
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await self._close_files()
                except (FalClientError, OSError) as error:
                    self._error = self._error or error
                self._send.close()

    async def _close_files(self) -> None:
        """Write what is left, and close the output file."""
        if self._output is not None:
            await self._output.aclose()
        await self._journal._flush()

    async def _close_journal(self) -> None:
        if self._owns_journal:
            await self._journal._aclose()

    def __aiter__(self) -> Self:
        self._check_entered()
        return self

    async def __anext__(self) -> Job:
        self._check_entered()
        try:
            job = await self._jobs.receive()
        except anyio.EndOfStream:
            self._raise_error()
            raise StopAsyncIteration from None
        self._ready -= 1
        self._scheduler.notify()
        if isinstance(job, StoredJob):
            return job.with_output(await self._journal._output(job.key))
        return job

    async def run(self) -> BatchSummary:
        """Wait until all jobs have ended, and return the totals.

        Raises:
            FalClientError: An error has stopped the batch. Running jobs were collected.
            BatchStoppedError: Too many jobs have failed.
            OSError: The output cannot be written.
        """
        self._check_entered()
        self._is_consumed = False
        self._scheduler.notify()
        async with self._jobs:
            async for _ in self._jobs:
                self._ready -= 1
                self._scheduler.notify()
        self._raise_error()
        return self.summary

    def _check_entered(self) -> None:
        if self._task is None:
            raise InvalidRequestError("a batch runs within its context: async with ... as batch")

    def _raise_error(self) -> None:
        error = self._error or self._scheduler.error
        if error is not None:
            raise error

    def stop(self) -> None:
        """Start no more jobs. The second call leaves the jobs in flight to the next run.

        Jobs in flight are waited for, left or cancelled as `on_stop` says.
        """
        self._check_entered()
        if self._scheduler.stopped == "requested":
            self._scheduler.abort()
        else:
            self._scheduler.stop("requested")

    async def _stop(self) -> None:
        self.stop()

    async def aclose(self) -> None:
        """Stop the batch, and wait until its jobs have ended or the grace period has passed."""
        task = self._task
        if task is None:
            return
        with anyio.CancelScope(shield=True):
            if not task.done:
                self._scheduler.stop("requested")
                await task.wait()
            self._jobs.close()
            await self._close_journal()

    @property
    def summary(self) -> BatchSummary:
        """The totals of the run so far."""
        summary = self._summary
        if self._task is not None:
            summary.started, summary.again = self._executor.started, self._executor.again
            summary.repeated = self._factory.repeated
            summary.stopped = self._scheduler.stopped
            if not self._task.done or not summary.seconds:
                summary.seconds = time.monotonic() - self._started_at
        return summary

    @property
    def progress(self) -> Progress:
        """The state of the batch at this moment."""
        self._check_entered()
        summary, total = self.summary, self._total
        rate = self._rate.per_second(time.monotonic())
        left = None if total is None else max(0, total - summary.done)
        mean = self._spending.mean
        at_end = None if mean is None or left is None else mean * left
        in_flight = self._limit.in_flight
        return Progress(
            total=total,
            done=summary.done,
            ok=summary.ok,
            failed=summary.failed,
            unsure=summary.unsure,
            lost=summary.lost,
            in_flight=in_flight,
            running=self._executor.running,
            queued=max(0, in_flight - self._executor.running),
            limit=self._limit.value,
            per_second=rate,
            eta=timedelta(seconds=left / rate) if left is not None and rate else None,
            units=summary.units,
            cost=summary.cost,
            cost_at_end=None if at_end is None else (summary.cost or 0) + at_end,
        )

    def _deliver(self, job: Job, change: RowChange) -> None:
        """Count an outcome, and pass it on when it is its turn."""
        self._summary.total += 1
        self._summary.add(job)
        if not job.resumed:
            self._rate.add(time.monotonic())
            if self._failures.add(failed=job.ok is False):
                error = BatchStoppedError(
                    f"{self._summary.failed} of {self._summary.done} jobs have failed, the latest "
                    f"with {job.error and job.error.message!r}; set stop_after=None to go on"
                )
                self._scheduler.stop("failures", error)
        self._ready += 1
        if not self._options.ordered:
            self._pass_on(job, change)
            return
        waiting = job.without_output() if isinstance(job, StoredJob) else job
        self._waiting[job.index] = waiting, change
        while (following := self._waiting.pop(self._next_index, None)) is not None:
            self._next_index += 1
            self._pass_on(*following)

    def _pass_on(self, job: Job, change: RowChange) -> None:
        """Write the row of an outcome, and pass it to the consumer."""
        if self._output is not None and change != "none":
            try:
                self._output.add(job, replace=change == "replaced")
            except OSError as error:
                self._scheduler.stop("error", error)
        if self._is_consumed:
            self._send.send_nowait(job.without_output() if isinstance(job, StoredJob) else job)
        else:
            self._ready -= 1

    def _may_deliver(self, index: int) -> bool:
        """Return whether the consumer accepts the outcome of another input."""
        if self._options.ordered and index == self._next_index:
            return True
        return self._ready + self._scheduler.saving < self._options.ready

    def _is_needed(self, item: Item) -> bool:
        """Return whether the output of a complete input is delivered or written."""
        return self._is_consumed or (self._output is not None and not item.is_written)


def _select_limit(options: BatchOptions) -> FixedLimit:
    if options.via == "run":
        return AdaptiveLimit(math.inf if options.in_flight == "auto" else options.in_flight)
    if options.wait == "webhook":  # the jobs that run are not observed, and need no connections
        return FixedLimit(MAX_QUEUED if options.in_flight == "auto" else options.in_flight)
    return QueueLimit() if options.in_flight == "auto" else FixedLimit(options.in_flight)
