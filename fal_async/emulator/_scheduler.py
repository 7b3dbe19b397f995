"""The queue: positions, concurrency, retries, cancellation."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Literal, TypeAlias

from fal_async.emulator._jobs import retry_reason
from fal_async.emulator._options import retries_allowed
from fal_async.emulator._responses import (
    Response,
    cancelled,
    internal_server_error,
    missed_start_deadline,
)
from fal_async.emulator._runners.execution import collect
from fal_async.emulator._tasks import cancel_tasks

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterator

    from fal_async.emulator._jobs import Job, RetryReason
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._state import PlatformState

__all__ = []


class QueueEntry:
    """What the queue knows of a job that has not ended.

    Attributes:
        job: The job.
        line: Where it waits when it waits.
        number: Its place among all jobs of the account.
        failures: How many runs failed, by what the trouble was.
        task: The run that goes on, or ``None``.
        pause: The pause before another try that goes on, or ``None``.
        deadline: The time by which it must have started, or ``None``.
        is_late: Whether that time has passed.
    """

    __slots__ = (
        "deadline",
        "failures",
        "job",
        "line",
        "missed_deadline",
        "number",
        "pause",
        "task",
    )

    def __init__(self, job: Job, line: EndpointQueue, number: int) -> None:
        self.job = job
        self.line = line
        self.number = number
        self.failures: Counter[RetryReason] = Counter()
        self.task: asyncio.Task[Response] | None = None
        self.pause: asyncio.TimerHandle | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.missed_deadline = False


class EndpointQueue:
    """The jobs that wait for one endpoint, and how many of its runs go on.

    Attributes:
        endpoint: The endpoint.
        running: How many runs go on, direct ones included.
        is_announcing: Whether those who wait are about to learn of their new positions.
    """

    __slots__ = ("_low", "_normal", "endpoint", "is_announcing", "running")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.running = 0
        self.is_announcing = False
        self._normal: OrderedDict[Job, QueueEntry] = OrderedDict()
        self._low: OrderedDict[Job, QueueEntry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._normal) + len(self._low)

    def __iter__(self) -> Iterator[Job]:
        return chain(self._normal, self._low)

    @property
    def has_capacity(self) -> bool:
        """Whether one more run may go on."""
        limit = self.endpoint.limit
        return limit is None or self.running < limit

    @property
    def first(self) -> QueueEntry:
        """Whose turn is next."""
        return next(iter((self._normal or self._low).values()))

    def append(self, ticket: QueueEntry) -> int:
        """Have a job wait; says how many are ahead of it."""
        ahead = len(self) if ticket.job.priority == "low" else len(self._normal)
        self._lane(ticket.job)[ticket.job] = ticket
        return ahead

    def prepend(self, ticket: QueueEntry) -> None:
        """Have a job wait ahead of the others of its priority."""
        lane = self._lane(ticket.job)
        lane[ticket.job] = ticket
        lane.move_to_end(ticket.job, last=False)

    def remove(self, ticket: QueueEntry) -> None:
        """Have a job wait no longer."""
        del self._lane(ticket.job)[ticket.job]

    def position(self, job: Job) -> int:
        """How many are ahead of a job; none of one that does not wait here."""
        return next((index for index, other in enumerate(self) if other is job), 0)

    def _lane(self, job: Job) -> OrderedDict[Job, QueueEntry]:
        return self._low if job.priority == "low" else self._normal


Cancellation: TypeAlias = Literal["OK", "CANCELLATION_REQUESTED", "ALREADY_COMPLETED"]


#: How often the pause between two tries is doubled.
_DOUBLINGS = 3


#: In a line longer than this, those who wait learn of their positions only so often, in seconds:
#: to tell each of thousands of every step would be quadratic.
_SHORT_LINE = 50


_ANNOUNCE_EVERY = 0.25


class Scheduler:
    """Starts jobs as places come free. All its methods are called in the emulator's loop."""

    def __init__(self, platform: PlatformState) -> None:
        self._platform = platform
        self._lines: dict[Endpoint, EndpointQueue] = {}
        self._tickets: dict[Job, QueueEntry] = {}
        self._direct: dict[Job, asyncio.Task[object] | None] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._running = 0
        self._numbers = 0
        self._stopped = False

    def limit_reached(self, endpoint: Endpoint) -> int | None:
        """The limit that keeps another run from starting now, or ``None``."""
        limit = self._platform.settings.concurrency
        if limit is not None and self._running >= limit:
            return limit
        return None if self._line(endpoint).has_capacity else endpoint.limit

    @contextlib.contextmanager
    def direct_run(self, job: Job, endpoint: Endpoint) -> Generator[None]:
        """Count a job that the current task runs past the queue."""
        self._direct[job] = asyncio.current_task()
        job.status = "IN_PROGRESS"
        self.acquire(endpoint)
        self._platform.record.notify()
        try:
            yield
        finally:
            job.status = "COMPLETED"
            del self._direct[job]
            self.release(endpoint)

    def acquire(self, endpoint: Endpoint) -> None:
        """Take a place for a run."""
        self._running += 1
        self._line(endpoint).running += 1
        endpoint.counters.running += 1

    def release(self, endpoint: Endpoint) -> None:
        """Give the place back, to whoever has waited longest."""
        self._running -= 1
        self._line(endpoint).running -= 1
        endpoint.counters.running -= 1
        self._platform.record.notify()
        if self._platform.settings.concurrency is None:
            return self._advance(self._line(endpoint))
        waiting = [line for line in self._lines.values() if len(line)]
        for line in sorted(waiting, key=lambda line: line.first.number):
            self._advance(line)
        return None

    def queue_length(self, endpoint: Endpoint) -> int:
        """How many jobs wait."""
        return len(self._line(endpoint))

    def position(self, job: Job) -> int:
        """How many jobs are ahead of it."""
        ticket = self._tickets.get(job)
        return 0 if ticket is None else ticket.line.position(job)

    def submit(self, job: Job, endpoint: Endpoint, start_timeout: float | None) -> int:
        """Queue a job, and say how many are ahead of it."""
        self._numbers += 1
        ticket = QueueEntry(job, self._line(endpoint), self._numbers)
        self._tickets[job] = ticket
        if start_timeout is not None:
            loop = asyncio.get_running_loop()
            ticket.deadline = loop.call_later(start_timeout, self._deadline_passed, ticket)
        ahead = ticket.line.append(ticket)
        endpoint.counters.queued += 1
        self._advance(ticket.line)
        return ahead

    def cancel(self, job: Job) -> Cancellation:
        """Call a job off."""
        ticket = self._tickets.get(job)
        if ticket is None:
            return "ALREADY_COMPLETED"
        is_first = not job.cancelled
        job.request_cancellation()
        ticket.line.endpoint.counters.cancelled += is_first
        if ticket.task is None:
            self._dequeue(ticket)
            self._complete(ticket, cancelled())
            return "OK"
        if is_first:
            self._in_background(self._cancel_runner(ticket, ticket.task))
        return "CANCELLATION_REQUESTED"

    async def cancel_all(self) -> None:
        """Cancel all jobs, queued and running, and wait until their runs have ended.

        Runs that do not end when they are cancelled are waited for as long as the emulator waits
        for them when it stops.
        """
        for ticket in list(self._tickets.values()):
            if ticket.task is None:
                self.cancel(ticket.job)
        running = {ticket.job: ticket.task for ticket in self._tickets.values()} | self._direct
        for job in running:
            job.request_cancellation()
        await cancel_tasks(
            lambda: {task for task in running.values() if task is not None and not task.done()}
        )

    def stop(self) -> None:
        """Cancel whatever runs, and start nothing more."""
        self._stopped = True
        for ticket in self._tickets.values():
            ticket.job.request_cancellation()
            if ticket.task is not None:
                ticket.task.cancel()

    def _line(self, endpoint: Endpoint) -> EndpointQueue:
        line = self._lines.get(endpoint)
        if line is None:
            line = self._lines[endpoint] = EndpointQueue(endpoint)
        return line

    def _advance(self, line: EndpointQueue) -> None:
        while len(line) and not self._stopped and self.limit_reached(line.endpoint) is None:
            ticket = line.first
            self._dequeue(ticket)
            self._start(ticket)

    def _dequeue(self, ticket: QueueEntry) -> None:
        """Take a job that does not run out of the queue."""
        ticket.line.endpoint.counters.queued -= 1
        if ticket.pause is None:
            ticket.line.remove(ticket)
            self._notify_positions(ticket.line)
        else:
            ticket.pause.cancel()
            ticket.pause = None

    def _start(self, ticket: QueueEntry) -> None:
        endpoint = ticket.line.endpoint
        self.acquire(endpoint)
        ticket.job.status = "IN_PROGRESS"
        run = collect(self._platform, endpoint, ticket.job)
        ticket.task = asyncio.get_running_loop().create_task(run)
        ticket.task.add_done_callback(partial(self._run_ended, ticket))
        ticket.job.notify()

    def _run_ended(self, ticket: QueueEntry, task: asyncio.Task[Response]) -> None:
        ticket.task = None
        if self._stopped:
            return
        self.release(ticket.line.endpoint)
        response = _response_of(task, ticket.job)
        trouble = None if ticket.job.cancelled else retry_reason(response)
        if trouble is None:
            self._complete(ticket, response)
        elif ticket.missed_deadline:
            self._complete(ticket, missed_start_deadline())
        elif self._may_try_again(ticket, trouble):
            self._try_again(ticket)
        else:
            self._complete(ticket, response)

    def _may_try_again(self, ticket: QueueEntry, trouble: RetryReason) -> bool:
        ticket.failures[trouble] += 1
        allowed = retries_allowed(ticket.job.headers, trouble)
        if allowed is not None:
            return ticket.failures[trouble] <= allowed
        return ticket.job.executions < self._platform.settings.attempts

    def _try_again(self, ticket: QueueEntry) -> None:
        ticket.job.status = "IN_QUEUE"
        ticket.line.endpoint.counters.queued += 1
        doublings = min(ticket.job.executions - 1, _DOUBLINGS)
        pause = self._platform.settings.backoff * 2**doublings
        loop = asyncio.get_running_loop()
        ticket.pause = loop.call_later(pause, self._pause_ended, ticket)
        ticket.job.notify()

    def _pause_ended(self, ticket: QueueEntry) -> None:
        ticket.pause = None
        ticket.line.prepend(ticket)
        self._advance(ticket.line)

    def _deadline_passed(self, ticket: QueueEntry) -> None:
        ticket.missed_deadline = True
        if ticket.task is None:
            self._dequeue(ticket)
            self._complete(ticket, missed_start_deadline())

    async def _cancel_runner(self, ticket: QueueEntry, task: asyncio.Task[Response]) -> None:
        if await ticket.line.endpoint.runner.cancel(ticket.job):
            task.cancel()

    def _complete(self, ticket: QueueEntry, response: Response) -> None:
        del self._tickets[ticket.job]
        if ticket.deadline is not None:
            ticket.deadline.cancel()
        ticket.line.endpoint.counters.completed += 1
        self._platform.jobs.complete(ticket.job, response)
        self._platform.record.notify()

    def _notify_positions(self, line: EndpointQueue) -> None:
        if len(line) <= _SHORT_LINE:
            self._announce_now(line)
        elif not line.is_announcing:
            line.is_announcing = True
            asyncio.get_running_loop().call_later(_ANNOUNCE_EVERY, self._announce_now, line)

    def _announce_now(self, line: EndpointQueue) -> None:
        line.is_announcing = False
        for job in line:
            job.notify()

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _response_of(task: asyncio.Task[Response], job: Job) -> Response:
    if not task.cancelled():
        return task.result()
    return cancelled() if job.cancelled else internal_server_error()
