"""`JobExecutor`: one input from its claim in the journal to its outcome."""

from __future__ import annotations

import logging
import math
import random
import time
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import anyio

from fal_async._client.inference import InferenceMixin
from fal_async._client.queue import QueueMixin
from fal_async._client.result import Result
from fal_async._config import RetryPolicy
from fal_async._files.auto_upload import attach_files
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.queue import JobUrls, default_urls
from fal_async._protocol.retry import BackoffSchedule, backoff_delays
from fal_async.batch.callbacks import CallbackWaiter, callback_url
from fal_async.batch.claims import claim, refresh_claim, withdraw
from fal_async.batch.entries import PENDING, Update, encode_output
from fal_async.batch.errors import JournalError
from fal_async.batch.files import JournalUploads, upload_each
from fal_async.batch.jobs import Again, ErrorFacts, Job, Stop, Unsettled
from fal_async.batch.limits import SubmitLimit
from fal_async.batch.lookup import find_output
from fal_async.batch.monitor import JobMonitor
from fal_async.errors import (
    AuthenticationError,
    ClientClosedError,
    ConnectionFailedError,
    FalClientError,
    FalClientHTTPError,
    JobCancelledError,
    MissingCredentialsError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    StartTimeoutError,
    SubmitOutcomeUnknownError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async._client.handle import AsyncRequestHandle
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.batch.inputs import Item
    from fal_async.batch.jobs import Outcome
    from fal_async.batch.journal import Journal
    from fal_async.batch.limits import FixedLimit
    from fal_async.batch.options import BatchOptions

__all__ = ["Calls", "JobExecutor"]

_log = logging.getLogger("fal_async")

#: The job of a submit, or the outcome of one that has started none.
Started: TypeAlias = "AsyncRequestHandle | Outcome"

#: A start is retried by the batch itself, which knows of all others.
STARTING: Final = RetryPolicy(attempts=1)
#: A result is read for as long as the platform keeps it.
READING: Final = RetryPolicy(attempts=10_000, budget=3600.0, max_delay=15.0)
#: The delays between attempts to start a job that was certainly not accepted.
START_DELAYS: Final = BackoffSchedule(first=0.5, growth=2.0, longest=30.0)
#: The time after which an input that another process is submitting is looked at again, in seconds.
OTHER_PROCESS_DELAY: Final = 1.0
#: The time that submits have to end after the batch was stopped, in seconds.
SUBMIT_GRACE_PERIOD: Final = 5.0
#: Errors that every other job would have as well.
_FATAL: Final = (
    AuthenticationError,
    PermissionDeniedError,
    MissingCredentialsError,
    ClientClosedError,
    JournalError,
)


class Calls(InferenceMixin, QueueMixin):
    """The calls of a client with a retry policy of their own."""

    def __init__(self, dispatcher: Dispatcher, policy: RetryPolicy) -> None:
        self._dispatcher = replace(dispatcher, policy=policy)


class JobExecutor:
    """Executes inputs: claims them in the journal, starts their jobs and collects their results.

    Args:
        dispatcher: The dispatcher of the client.
        journal: The journal, which is open.
        options: The options of the batch.
        limit: The limit on the jobs in flight, which learns from them.
        is_stopping: Returns whether no more jobs should be started.

    Attributes:
        started: The number of jobs that were started, or may have been.
        again: The number of jobs that were started although an earlier one may exist.
        price: The price of a unit, or ``None``.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        journal: Journal,
        options: BatchOptions,
        limit: FixedLimit,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._dispatcher = dispatcher
        self._starting = Calls(dispatcher, STARTING)
        self._reading = Calls(dispatcher, READING)
        self._journal = journal
        self._options = options
        self._limit = limit
        self._is_stopping = is_stopping
        self._reuse = JournalUploads(dispatcher, journal) if options.upload_once else upload_each
        self._callbacks = (
            CallbackWaiter(dispatcher, journal, options) if options.wait == "webhook" else None
        )
        self._submit_limit = SubmitLimit(options.submitting)
        self._monitor = JobMonitor(self._reading._dispatcher, limit)
        self._handles: dict[Item, AsyncRequestHandle] = {}
        self._is_cancelling = False
        self.started: int = 0
        self.again: int = 0
        self.price: Decimal | None = None

    async def start(self, item: Item) -> Outcome:
        """Start a job for an input, and wait for its outcome."""
        options = dict(self._options.submit_options)
        try:
            arguments = await attach_files(
                self._dispatcher,
                item.arguments,
                auto_upload=options.pop("auto_upload", True),
                reuse=self._reuse,
            )
            item.sent = arguments
        except (FalClientError, OSError) as error:
            if isinstance(error, _FATAL):
                return Stop(error)
            return await self._fail(item, error, claim=True)
        if self._options.via == "run":
            return await self._run(item, arguments, options)
        async with self._submit_limit.slots:
            if self._is_stopping():
                return Stop()
            if not await self._claim(item, enough=self._submit_limit.value):
                return Again(OTHER_PROCESS_DELAY, is_foreign=True)
            if (url := self._options.webhook_url) is not None:
                options["webhook_url"] = callback_url(url, item.key, item.attempts)
            try:
                started: Started = await self._submit(item, arguments, options)
            except FalClientError as error:
                started = await self._not_submitted(item, error)
        return await self.collect(item, started)

    async def _claim(self, item: Item, *, enough: float = 1) -> bool:
        """Record durably that a job is about to be started; return false if it was already."""
        is_claimed = await claim(self._journal, item, enough=enough)
        self.started += is_claimed
        return is_claimed

    def _rollback_claim(self, item: Item, error: FalClientError | None = None) -> Stop:
        """Undo the claim of an input without a job. The batch stops before that is durable."""
        self._record(item, state="planned", attempts=item.attempts - 1)
        item.attempts -= 1
        self.started -= 1
        return Stop(error)

    def _record(self, item: Item, *, output: bytes | None = None, **values: Any) -> None:
        self._journal._commit_soon(Update(item.key, item.attempts, values, output))

    def _record_submit(self, item: Item, **values: Any) -> None:
        """Record the outcome of a submit, unless a callback with that of the job was faster."""
        self._journal._commit_soon(Update(item.key, item.attempts, values, states=("submitting",)))

    async def _submit(
        self, item: Item, arguments: Any, options: Mapping[str, Any]
    ) -> AsyncRequestHandle | Again | Stop:
        """Submit a job; try again for as long as it was certainly not accepted."""
        delays = backoff_delays(random.random, START_DELAYS)
        while True:
            try:
                async with self._submit_limit.requests:
                    if self._is_stopping():
                        return self._rollback_claim(item)
                    if not await refresh_claim(self._journal, item):
                        return Again(is_foreign=True)
                    sent_at = time.monotonic()
                    handle = await self._starting.submit(
                        item.application, arguments, auto_upload=False, **options
                    )
            except (RateLimitError, ConnectionFailedError, FalClientHTTPError) as error:
                if not _is_start_retried(error) or self._is_stopping():
                    raise
                delay = max(next(delays), getattr(error, "retry_after", None) or 0.0)
                _log.info("Submitting input %d again in %.1f s: %s", item.index, delay, error)
            else:
                seconds = time.monotonic() - sent_at
                self._submit_limit.observe_submit(
                    seconds, self._monitor.queued, self._monitor.running
                )
                # A job that takes over the slot is claimed no earlier than this is durable.
                self._record_submit(item, state="running", **_handle_values(handle, self._starting))
                return handle
            await anyio.sleep(delay)

    async def _not_submitted(self, item: Item, error: FalClientError) -> Started:
        """Settle an input whose job was rejected, or may have been started."""
        known = getattr(error, "request_id", None)
        if isinstance(error, SubmitOutcomeUnknownError) and known is not None:
            self._record_submit(item, state="running", request_id=known)
            return await self._starting.get_handle(item.application, known)
        if error.started is False or isinstance(error, _FATAL):
            is_fatal = isinstance(error, (*_FATAL, NotFoundError))
            if is_fatal or _is_start_retried(error):
                return self._rollback_claim(item, error if is_fatal else None)
            return await self._fail(item, error)
        facts = replace(ErrorFacts.from_error(error), final=False)
        item.submitted_by = time.time()
        self._record_submit(item, state="unsure", ended_at=item.submitted_by, error=facts.to_dict())
        return Unsettled()

    async def _run(self, item: Item, arguments: Any, options: Mapping[str, Any]) -> Outcome:
        """Run an input directly; wait while the account has too many runs."""
        if not await self._claim(item):
            return Again(OTHER_PROCESS_DELAY, is_foreign=True)
        delays = backoff_delays(random.random, START_DELAYS)
        while True:
            if not await refresh_claim(self._journal, item):
                return Again(is_foreign=True)
            sent_at = time.monotonic()
            try:
                output = await self._starting.run(
                    item.application, arguments, auto_upload=False, **options
                )
            except RateLimitError as error:
                if error.started is not False or self._is_stopping():
                    return await self._run_failed(item, error)
                self._limit.refused(sent_at, time.monotonic(), error.retry_after)
                delay = max(next(delays), error.retry_after or 0.0)
            except ConnectionFailedError as error:
                if self._is_stopping():
                    return await self._run_failed(item, error)
                delay = next(delays)
            except FalClientError as error:
                return await self._run_failed(item, error)
            else:
                self._limit.succeeded()
                return self._succeed(item, output, getattr(output, "request_id", None))
            await anyio.sleep(delay)

    async def _run_failed(self, item: Item, error: FalClientError) -> Outcome:
        if error.stage == "job" and error.started:
            return await self._fail(item, error)
        return await self.collect(item, await self._not_submitted(item, error))

    def attach(self, data: Mapping[str, str]) -> AsyncRequestHandle:
        """Return the handle of a job that was started before."""
        return self._reading.attach(data)

    async def collect(self, item: Item, handle: Started) -> Outcome:
        """Wait until a job has ended, and fetch its result, if one was started."""
        if isinstance(handle, Job | Again | Unsettled | Stop):
            return handle
        handle._bind(self._reading._dispatcher)
        self._handles[item] = handle
        try:
            if self._is_cancelling:
                await self._cancel(item, handle)
            outcome = None if self._callbacks is None else await self._callbacks.wait(item)
            if outcome is not None:
                return outcome
            output = await self._monitor.wait(handle)
        except FalClientError as error:
            if isinstance(error, JobCancelledError) and item.is_withdrawn:
                await self._end(item, state="planned", error=None)
                return Again()
            if error.stage == "job":
                return await self._fail(item, error, handle.request_id)
            if isinstance(error, NotFoundError):
                return await self._lose(item, error, handle.request_id)
            if isinstance(error, _FATAL):
                return Stop(error)
            # The journal still has the job, so that the next run can fetch its result.
            facts = replace(ErrorFacts.from_error(error), final=False)
            return self._make_job(item, ok=None, request_id=handle.request_id, error=facts)
        finally:
            del self._handles[item]
        return self._succeed(item, output, handle.request_id)

    @property
    def running(self) -> int:
        """The number of jobs that runners execute, as far as their statuses are known."""
        return self._monitor.running

    async def _lose(self, item: Item, error: NotFoundError, request_id: str) -> Job | Again:
        """Settle an input whose result has expired, or is unknown to the platform."""
        output = await find_output(self._reading._dispatcher, item.application, request_id)
        if output is not None:
            return self._succeed(item, output, request_id)
        error.started = True
        if self._options.lost == "again" and item.attempts < self._options.attempts:
            self.again += 1
            facts = replace(ErrorFacts.from_error(error), final=False)
            await self._end(item, state="lost", error=facts.to_dict())
            return Again()
        facts = ErrorFacts.from_error(error)
        if not await self._end(item, state="lost", error=facts.to_dict()):
            return Again(is_foreign=True)
        return self._make_job(item, ok=False, request_id=request_id, error=facts)

    async def _fail(
        self,
        item: Item,
        error: Exception,
        request_id: str | None = None,
        *,
        claim: bool = False,
    ) -> Job | Again:
        """Settle an input whose job has failed or was rejected: start another one, or report it."""
        if claim and not await self._claim(item):
            return Again(OTHER_PROCESS_DELAY, is_foreign=True)
        facts = ErrorFacts.from_error(error)
        is_passing = facts.retryable or isinstance(error, StartTimeoutError)
        facts = replace(facts, final=not is_passing or item.attempts >= self._options.attempts)
        is_ended = await self._end(item, state="failed", error=facts.to_dict())
        if not (is_ended and facts.final):
            return Again(is_foreign=not is_ended)
        return self._make_job(item, ok=False, request_id=request_id, error=facts)

    async def _end(self, item: Item, **values: Any) -> bool:
        """Record an outcome after which another job may be started, and know it as the latest.

        Returns:
            Whether it is recorded: another process may have recorded an outcome before.
        """
        values["ended_at"] = time.time()
        applied = await self._journal._commit(
            Update(item.key, item.attempts, values, states=PENDING), enough=math.inf
        )
        item.entry = (await self._journal._find([item.key])).get(item.key)
        return applied

    def _succeed(self, item: Item, output: Any, request_id: str | None) -> Job:
        result = cast("Result", output) if isinstance(output, Result) else None
        units = None if result is None else result.billable_units
        cost = None if result is None else result.cost
        if self.price is not None and units is not None:
            cost = Decimal(str(units)) * self.price
        body = encode_output(output) if self._journal.keep_outputs else None
        size = len(body or b"")
        self._limit.observe_output(size)
        paid: dict[str, Any] = {"request_id": request_id, "units": units, "cost": cost}
        self._record(item, output=body, state="ended", error=None, ended_at=time.time(), **paid)
        return self._make_job(item, size=size, ok=True, output=output, result=result, **paid)

    def _make_job(self, item: Item, **outcome: Any) -> Job:
        return item.make_job(
            attempts=item.attempts,
            seconds=max(0.0, time.time() - item.started_at) if item.started_at else 0.0,
            resumed=item.resumed,
            **outcome,
        )

    async def finish_submits(self) -> None:
        """Wait until no job is being submitted, for a limited time."""
        with anyio.move_on_after(SUBMIT_GRACE_PERIOD):
            await self._submit_limit.acquire_all()

    async def cancel_all(self) -> None:
        """Cancel all jobs in flight. A job that cannot be cancelled ends by itself."""
        self._is_cancelling = True
        async with anyio.create_task_group() as group:
            for item, handle in list(self._handles.items()):
                group.start_soon(self._cancel, item, handle)
        if self._callbacks is not None:
            self._callbacks.give_up()

    async def _cancel(self, item: Item, handle: AsyncRequestHandle) -> None:
        item.is_withdrawn = True
        with suppress(FalClientError):
            await self._journal._commit(withdraw(item.key, item.attempts), enough=math.inf)
            await handle.cancel()


def _is_start_retried(error: FalClientError) -> bool:
    """Return whether a start was certainly not accepted, for a reason that passes."""
    if error.started is not False:
        return False
    if isinstance(error, ConnectionFailedError | RateLimitError):
        return True
    return isinstance(error, FalClientHTTPError) and error.status_code >= 500


def _handle_values(handle: AsyncRequestHandle, calls: Calls) -> dict[str, Any]:
    """Return the values of the journal for a handle: its URLs only if they are unusual."""
    usual = default_urls(
        calls._dispatcher.hosts, parse_endpoint(handle.application), handle.request_id
    )
    urls = JobUrls(
        status_url=handle.status_url,
        response_url=handle.response_url,
        cancel_url=handle.cancel_url,
    )
    values: dict[str, Any] = {"request_id": handle.request_id}
    return values if urls == usual else {**values, "handle": handle.to_dict()}
