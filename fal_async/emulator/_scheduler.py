"""The queue: who waits, who runs, who tries again, and who is called off."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Literal, TypeAlias

from fal_async.emulator._execution import collect
from fal_async.emulator._policy import attempts, is_worth_retrying
from fal_async.emulator._replies import Reply, cancelled, detail, missed_start_deadline

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from fal_async.emulator._job import Job
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._registry import Endpoint

Cancellation: TypeAlias = Literal["OK", "CANCELLATION_REQUESTED", "ALREADY_COMPLETED"]

#: The longest pause between two attempts, in seconds.
_LONGEST_BACKOFF = 0.1
#: In a longer queue, those who wait learn of their new positions only so often, in seconds.
_SHORT_QUEUE = 50
_ANNOUNCE_EVERY = 0.25


@dataclass(slots=True, eq=False)
class _Line:
    """Those who wait for one endpoint, and how many of its runs go on."""

    endpoint: Endpoint
    normal: OrderedDict[Job, _Ticket] = field(default_factory=OrderedDict)
    low: OrderedDict[Job, _Ticket] = field(default_factory=OrderedDict)
    running: int = 0
    announcing: bool = False

    def __len__(self) -> int:
        return len(self.normal) + len(self.low)

    def __iter__(self) -> Iterator[Job]:
        return chain(self.normal, self.low)

    def lane(self, job: Job) -> OrderedDict[Job, _Ticket]:
        return self.low if job.priority == "low" else self.normal

    def first(self) -> _Ticket:
        return next(iter((self.normal or self.low).values()))

    @property
    def has_room(self) -> bool:
        limit = self.endpoint.limit
        return limit is None or self.running < limit


@dataclass(slots=True, eq=False)
class _Ticket:
    """What the queue knows of a job that has not ended."""

    job: Job
    line: _Line
    number: int
    attempts_left: int
    task: asyncio.Task[Reply] | None = None
    pause: asyncio.TimerHandle | None = None
    deadline: asyncio.TimerHandle | None = None
    too_late: bool = False


class Scheduler:
    """Starts jobs as places come free. All its methods are called in the emulator's loop."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lines: dict[Endpoint, _Line] = {}
        self._tickets: dict[Job, _Ticket] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._running = 0
        self._next_number = 0
        self._stopped = False

    def limit_reached(self, endpoint: Endpoint) -> int | None:
        """The limit that keeps another run from starting now, or ``None``."""
        limit = self._platform.settings.concurrency
        if limit is not None and self._running >= limit:
            return limit
        return None if self._line(endpoint).has_room else endpoint.limit

    def enter(self, endpoint: Endpoint) -> None:
        """Take a place for a run."""
        self._running += 1
        self._line(endpoint).running += 1
        endpoint.counters.running += 1

    def leave(self, endpoint: Endpoint) -> None:
        """Give the place back, to whoever has waited longest."""
        self._running -= 1
        self._line(endpoint).running -= 1
        endpoint.counters.running -= 1
        self._platform.record.ring()
        if self._platform.settings.concurrency is None:
            self._advance(self._line(endpoint))
        else:
            waiting = [line for line in self._lines.values() if len(line)]
            for line in sorted(waiting, key=lambda line: line.first().number):
                self._advance(line)

    def queue_length(self, endpoint: Endpoint) -> int:
        """How many jobs wait."""
        return len(self._line(endpoint))

    def position(self, job: Job) -> int:
        """How many jobs are ahead of it."""
        ticket = self._tickets.get(job)
        if ticket is None or job not in ticket.line.lane(job):
            return 0
        return next(index for index, other in enumerate(ticket.line) if other is job)

    def submit(self, job: Job, endpoint: Endpoint, start_timeout: float | None) -> int:
        """Queue a job, and say how many are ahead of it."""
        line = self._line(endpoint)
        ahead = len(line) if job.priority == "low" else len(line.normal)
        self._next_number += 1
        tries = attempts(job.headers, self._platform.settings.attempts)
        ticket = _Ticket(job, line, self._next_number, tries)
        self._tickets[job] = ticket
        if start_timeout is not None:
            loop = asyncio.get_running_loop()
            ticket.deadline = loop.call_later(start_timeout, self._deadline_passed, ticket)
        self._enqueue(ticket)
        return ahead

    def cancel(self, job: Job) -> Cancellation:
        """Call a job off."""
        ticket = self._tickets.get(job)
        if ticket is None:
            return "ALREADY_COMPLETED"
        first_time = not job.cancelled
        job.cancellation.open()
        counters = ticket.line.endpoint.counters
        counters.cancelled += first_time
        if ticket.task is None:
            self._withdraw(ticket)
            self._complete(ticket, cancelled())
            return "OK"
        if first_time:
            self._in_background(self._call_off(ticket, ticket.task))
        self._platform.record.ring()
        return "CANCELLATION_REQUESTED"

    def stop(self) -> None:
        """Cancel whatever runs, and start nothing more."""
        self._stopped = True
        for ticket in self._tickets.values():
            ticket.job.cancellation.open()
            if ticket.task is not None:
                ticket.task.cancel()

    def _line(self, endpoint: Endpoint) -> _Line:
        line = self._lines.get(endpoint)
        if line is None:
            line = self._lines[endpoint] = _Line(endpoint)
        return line

    def _enqueue(self, ticket: _Ticket) -> None:
        ticket.line.lane(ticket.job)[ticket.job] = ticket
        ticket.line.endpoint.counters.queued += 1
        self._advance(ticket.line)
        self._platform.record.ring()

    def _enqueue_again(self, ticket: _Ticket) -> None:
        ticket.pause = None
        lane = ticket.line.lane(ticket.job)
        lane[ticket.job] = ticket
        lane.move_to_end(ticket.job, last=False)
        self._advance(ticket.line)

    def _withdraw(self, ticket: _Ticket) -> None:
        ticket.line.endpoint.counters.queued -= 1
        if ticket.pause is not None:
            ticket.pause.cancel()
            ticket.pause = None
        else:
            del ticket.line.lane(ticket.job)[ticket.job]
            self._announce(ticket.line)

    def _advance(self, line: _Line) -> None:
        moved = False
        while len(line) and not self._stopped and self.limit_reached(line.endpoint) is None:
            ticket = line.first()
            self._withdraw(ticket)
            self._start(ticket)
            moved = True
        if moved:
            self._announce(line)

    def _start(self, ticket: _Ticket) -> None:
        self.enter(ticket.line.endpoint)
        ticket.attempts_left -= 1
        ticket.job.status = "IN_PROGRESS"
        ticket.task = asyncio.get_running_loop().create_task(
            collect(self._platform, ticket.line.endpoint, ticket.job)
        )
        ticket.task.add_done_callback(partial(self._run_ended, ticket))
        ticket.job.changed()

    def _run_ended(self, ticket: _Ticket, task: asyncio.Task[Reply]) -> None:
        ticket.task = None
        if self._stopped:
            return
        reply = _reply_of(task, ticket.job)
        worth_retrying = is_worth_retrying(reply) and not ticket.job.cancelled
        if worth_retrying and ticket.too_late:
            self._complete(ticket, missed_start_deadline())
        elif worth_retrying and ticket.attempts_left > 0:
            self._retry(ticket)
        else:
            self._complete(ticket, reply)
        self.leave(ticket.line.endpoint)

    def _retry(self, ticket: _Ticket) -> None:
        ticket.job.status = "IN_QUEUE"
        ticket.line.endpoint.counters.queued += 1
        pause = min(
            self._platform.settings.backoff * 2 ** (ticket.job.executions - 1), _LONGEST_BACKOFF
        )
        loop = asyncio.get_running_loop()
        ticket.pause = loop.call_later(pause, self._enqueue_again, ticket)
        ticket.job.changed()

    def _deadline_passed(self, ticket: _Ticket) -> None:
        ticket.too_late = True
        if ticket.task is None:
            self._withdraw(ticket)
            self._complete(ticket, missed_start_deadline())

    async def _call_off(self, ticket: _Ticket, task: asyncio.Task[Reply]) -> None:
        if await ticket.line.endpoint.runner.cancel(ticket.job):
            task.cancel()

    def _complete(self, ticket: _Ticket, reply: Reply) -> None:
        del self._tickets[ticket.job]
        if ticket.deadline is not None:
            ticket.deadline.cancel()
        ticket.line.endpoint.counters.completed += 1
        self._platform.jobs.complete(ticket.job, reply)
        self._platform.record.ring()

    def _announce(self, line: _Line) -> None:
        if len(line) <= _SHORT_QUEUE:
            for job in line:
                job.changed()
        elif not line.announcing:
            line.announcing = True
            asyncio.get_running_loop().call_later(_ANNOUNCE_EVERY, self._announce_now, line)

    def _announce_now(self, line: _Line) -> None:
        line.announcing = False
        for job in line:
            job.changed()

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _reply_of(task: asyncio.Task[Reply], job: Job) -> Reply:
    if not task.cancelled():
        return task.result()
    return cancelled() if job.cancelled else detail(500, "Internal Server Error")
