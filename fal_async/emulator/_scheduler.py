"""The queue: positions, concurrency, retries, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter, OrderedDict
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fal_async.emulator._options import parse_flag, parse_max_retries
from fal_async.emulator._responses import (
    Response,
    cancelled,
    internal_server_error,
    missed_start_deadline,
)
from fal_async.emulator._tasks import cancel_tasks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from fal_async.emulator._history import History
    from fal_async.emulator._jobs import Job, Jobs
    from fal_async.emulator._options import RetryReason
    from fal_async.emulator._recorder import Recorder
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._runners.execution import Executor
    from fal_async.emulator._settings import Settings

Cancellation: TypeAlias = Literal["OK", "CANCELLATION_REQUESTED", "ALREADY_COMPLETED"]

_REASON_BY_ERROR_TYPE: dict[str | None, RetryReason] = {
    "request_timeout": "timeout",
    "runner_incomplete_response": "server_error",
    "runner_disconnected": "server_error",
    "runner_connection_error": "connection_error",
    "runner_connection_refused": "connection_error",
    "runner_connection_timeout": "connection_error",
}
_REASON_BY_STATUS: dict[int, RetryReason] = {503: "server_error", 504: "server_error"}
#: How often the backoff is doubled.
_MAX_DOUBLINGS: Final = 3
#: Jobs in a queue longer than this are notified of their positions only at intervals, in seconds:
#: notifying each of thousands about every step would take quadratic time.
_SHORT_QUEUE: Final = 50
_POSITIONS_INTERVAL: Final = 0.25


class QueueEntry:
    """A job of the queue that has not completed.

    Attributes:
        job: The job.
        queue: The queue of its endpoint.
        number: The number of the job among all jobs of the account, in order of submission.
        errors: The number of failed runs by reason.
        task: The task of the current run, or ``None``.
        backoff: The timer of the next retry, or ``None``.
        deadline: The timer of the start timeout, or ``None``.
        missed_deadline: Whether the start timeout has passed.
    """

    __slots__ = (
        "backoff",
        "deadline",
        "errors",
        "job",
        "missed_deadline",
        "number",
        "queue",
        "task",
    )

    def __init__(self, job: Job, queue: EndpointQueue, number: int) -> None:
        self.job = job
        self.queue = queue
        self.number = number
        self.errors: Counter[RetryReason] = Counter()
        self.task: asyncio.Task[Response] | None = None
        self.backoff: asyncio.TimerHandle | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.missed_deadline = False


class EndpointQueue:
    """The queued jobs of one endpoint, and the number of its runs.

    Attributes:
        endpoint: The endpoint.
        running: The number of runs in progress, direct ones included.
        is_notifying: Whether a notification of new positions is scheduled.
    """

    __slots__ = ("_low", "_normal", "endpoint", "is_notifying", "running")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.running = 0
        self.is_notifying = False
        self._normal: OrderedDict[Job, QueueEntry] = OrderedDict()
        self._low: OrderedDict[Job, QueueEntry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._normal) + len(self._low)

    def __iter__(self) -> Iterator[Job]:
        return chain(self._normal, self._low)

    @property
    def has_capacity(self) -> bool:
        """True if the limit of the endpoint allows one more run."""
        limit = self.endpoint.limit
        return limit is None or self.running < limit

    @property
    def first(self) -> QueueEntry:
        """The entry that starts next."""
        return next(iter((self._normal or self._low).values()))

    def append(self, entry: QueueEntry) -> int:
        """Add an entry, and return the number of entries ahead of it."""
        position = len(self) if entry.job.priority == "low" else len(self._normal)
        self._by_priority(entry.job)[entry.job] = entry
        return position

    def append_first(self, entry: QueueEntry) -> None:
        """Add an entry ahead of the others of its priority."""
        entries = self._by_priority(entry.job)
        entries[entry.job] = entry
        entries.move_to_end(entry.job, last=False)

    def remove(self, entry: QueueEntry) -> None:
        """Remove an entry."""
        del self._by_priority(entry.job)[entry.job]

    def position(self, job: Job) -> int:
        """Return the number of entries ahead of a job; 0 for a job that is not in the queue."""
        return next((index for index, other in enumerate(self) if other is job), 0)

    def _by_priority(self, job: Job) -> OrderedDict[Job, QueueEntry]:
        return self._low if job.priority == "low" else self._normal


class Scheduler:
    """Starts jobs as slots become free. A run holds a slot of the account and of its endpoint.

    All methods must be called in the emulator's event loop.

    Args:
        settings: The limit of the account, and the retries.
        jobs: The jobs that the scheduler completes.
        history: Records the responses.
        recorder: Notified of every change.
        executor: Executes the jobs.
    """

    def __init__(
        self,
        settings: Settings,
        jobs: Jobs,
        history: History,
        recorder: Recorder,
        executor: Executor,
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._history = history
        self._recorder = recorder
        self._executor = executor
        self._queues: dict[Endpoint, EndpointQueue] = {}
        self._entries: dict[Job, QueueEntry] = {}
        self._direct: dict[Job, asyncio.Task[object] | None] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._running = 0
        self._submitted = 0
        self._stopped = False

    def reached_limit(self, endpoint: Endpoint) -> int | None:
        """Return the limit that prevents another run now, or ``None``."""
        limit = self._settings.concurrency
        if limit is not None and self._running >= limit:
            return limit
        return None if self._queue(endpoint).has_capacity else endpoint.limit

    @contextlib.contextmanager
    def direct_run(self, job: Job, endpoint: Endpoint) -> Generator[None]:
        """Hold a slot for a direct run of the current task."""
        self._direct[job] = asyncio.current_task()
        job.status = "IN_PROGRESS"
        self.acquire(endpoint)
        self._recorder.notify()
        try:
            yield
        finally:
            job.status = "COMPLETED"
            del self._direct[job]
            self.release(endpoint)

    def acquire(self, endpoint: Endpoint) -> None:
        """Acquire a slot for a run."""
        self._running += 1
        self._queue(endpoint).running += 1
        endpoint.counters.running += 1

    def release(self, endpoint: Endpoint) -> None:
        """Release a slot, and start the job that has waited longest."""
        self._running -= 1
        self._queue(endpoint).running -= 1
        endpoint.counters.running -= 1
        self._recorder.notify()
        if self._settings.concurrency is None:
            return self._start_jobs(self._queue(endpoint))
        waiting = [queue for queue in self._queues.values() if len(queue)]
        for queue in sorted(waiting, key=lambda queue: queue.first.number):
            self._start_jobs(queue)
        return None

    def queue_length(self, endpoint: Endpoint) -> int:
        """Return the number of queued jobs of an endpoint."""
        return len(self._queue(endpoint))

    def forget(self, endpoint: Endpoint) -> None:
        """Forget the queue of an endpoint that is no longer registered."""
        self._queues.pop(endpoint, None)

    def position(self, job: Job) -> int:
        """Return the number of jobs ahead of a job."""
        entry = self._entries.get(job)
        return 0 if entry is None else entry.queue.position(job)

    def submit(self, job: Job, endpoint: Endpoint, start_timeout: float | None) -> int:
        """Add a job to the queue.

        Args:
            job: The job.
            endpoint: Its endpoint.
            start_timeout: The time within which it must start, in seconds. ``None`` disables the
                timeout.

        Returns:
            The number of jobs ahead of it.
        """
        self._submitted += 1
        entry = QueueEntry(job, self._queue(endpoint), self._submitted)
        self._entries[job] = entry

        def miss_deadline() -> None:
            entry.missed_deadline = True
            if entry.task is None:
                self._dequeue(entry)
                self._complete(entry, missed_start_deadline())

        if start_timeout is not None:
            loop = asyncio.get_running_loop()
            entry.deadline = loop.call_later(start_timeout, miss_deadline)
        position = entry.queue.append(entry)
        endpoint.counters.queued += 1
        self._start_jobs(entry.queue)
        return position

    def cancel(self, job: Job) -> Cancellation:
        """Cancel a job."""
        entry = self._entries.get(job)
        if entry is None:
            return "ALREADY_COMPLETED"
        is_first = not job.cancelled
        job._request_cancellation()
        entry.queue.endpoint.counters.cancelled += is_first
        run = entry.task
        if run is None:
            self._dequeue(entry)
            self._complete(entry, cancelled())
            return "OK"

        async def cancel_runner() -> None:
            if await entry.queue.endpoint.runner.cancel(job):
                run.cancel()

        if is_first:
            task = asyncio.create_task(cancel_runner())
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        return "CANCELLATION_REQUESTED"

    async def cancel_all(self) -> None:
        """Cancel all queued and running jobs, and wait until their runs have ended.

        The wait for runs that resist cancellation is limited, as when the emulator stops.
        """
        for entry in list(self._entries.values()):
            if entry.task is None:
                self.cancel(entry.job)
        running = {entry.job: entry.task for entry in self._entries.values()} | self._direct
        for job in running:
            job._request_cancellation()
        await cancel_tasks(
            lambda: {task for task in running.values() if task is not None and not task.done()}
        )

    def stop(self) -> None:
        """Cancel all runs, and start no more."""
        self._stopped = True
        for entry in self._entries.values():
            entry.job._request_cancellation()
            if entry.task is not None:
                entry.task.cancel()

    def _queue(self, endpoint: Endpoint) -> EndpointQueue:
        queue = self._queues.get(endpoint)
        if queue is None:
            queue = self._queues[endpoint] = EndpointQueue(endpoint)
        return queue

    def _start_jobs(self, queue: EndpointQueue) -> None:
        endpoint = queue.endpoint
        while len(queue) and not self._stopped and self.reached_limit(endpoint) is None:
            entry = queue.first
            self._dequeue(entry)
            self.acquire(endpoint)
            entry.job.status = "IN_PROGRESS"
            run = self._executor.collect(endpoint, entry.job)
            entry.task = asyncio.get_running_loop().create_task(run)
            entry.task.add_done_callback(partial(self._end_run, entry))
            entry.job._notify()

    def _dequeue(self, entry: QueueEntry) -> None:
        """Remove a job that does not run from the queue, or end its backoff."""
        queue = entry.queue
        queue.endpoint.counters.queued -= 1
        if entry.backoff is not None:
            entry.backoff.cancel()
            entry.backoff = None
            return
        queue.remove(entry)

        def notify_positions() -> None:
            queue.is_notifying = False
            for job in queue:
                job._notify()

        if len(queue) <= _SHORT_QUEUE:
            notify_positions()
        elif not queue.is_notifying:
            queue.is_notifying = True
            asyncio.get_running_loop().call_later(_POSITIONS_INTERVAL, notify_positions)

    def _end_run(self, entry: QueueEntry, task: asyncio.Task[Response]) -> None:
        entry.task = None
        if self._stopped:
            return
        self.release(entry.queue.endpoint)
        if not task.cancelled():
            response = task.result()
        else:
            response = cancelled() if entry.job.cancelled else internal_server_error()
        reason = None if entry.job.cancelled else retry_reason(response)
        if reason is None:
            self._complete(entry, response)
            return
        if entry.missed_deadline:
            self._complete(entry, missed_start_deadline())
            return
        entry.errors[reason] += 1
        max_retries = parse_max_retries(entry.job.headers, reason)
        if max_retries is None:
            is_retried = entry.job.executions < self._settings.attempts
        else:
            is_retried = entry.errors[reason] <= max_retries
        if not is_retried:
            self._complete(entry, response)
            return

        def requeue() -> None:
            entry.backoff = None
            entry.queue.append_first(entry)
            self._start_jobs(entry.queue)

        entry.job.status = "IN_QUEUE"
        entry.job.gateway_request_id = str(uuid.uuid4())
        entry.queue.endpoint.counters.queued += 1
        doublings = min(entry.job.executions - 1, _MAX_DOUBLINGS)
        seconds = self._settings.backoff * 2**doublings
        entry.backoff = asyncio.get_running_loop().call_later(seconds, requeue)
        entry.job._notify()

    def _complete(self, entry: QueueEntry, response: Response) -> None:
        del self._entries[entry.job]
        if entry.deadline is not None:
            entry.deadline.cancel()
        entry.queue.endpoint.counters.completed += 1
        self._jobs.complete(entry.job, response)
        self._history.end(entry.job, response.status, response.body)
        self._recorder.notify()


def retry_reason(response: Response) -> RetryReason | None:
    """Return the reason to retry on another runner. A header of the app takes precedence."""
    reason = _REASON_BY_ERROR_TYPE.get(response.error_type) or _REASON_BY_STATUS.get(
        response.status
    )
    header = response.header("x-fal-needs-retry")
    if header is None:
        return reason
    return (reason or "server_error") if parse_flag(header) else None
