"""The queue: who runs, who tries again, and who is called off."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from fal_async.emulator._execution import collect
from fal_async.emulator._line import Line, Ticket
from fal_async.emulator._policy import retries_allowed, trouble_of
from fal_async.emulator._replies import (
    Reply,
    cancelled,
    internal_server_error,
    missed_start_deadline,
)
from fal_async.emulator._tasks import cancel_tasks

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from fal_async.emulator._job import Job
    from fal_async.emulator._platform import Platform
    from fal_async.emulator._policy import Trouble
    from fal_async.emulator._registry import Endpoint

Cancellation: TypeAlias = Literal["OK", "CANCELLATION_REQUESTED", "ALREADY_COMPLETED"]

#: How often the pause between two tries is doubled.
_DOUBLINGS = 3
#: In a line longer than this, those who wait learn of their positions only so often, in seconds:
#: to tell each of thousands of every step would be quadratic.
_SHORT_LINE = 50
_ANNOUNCE_EVERY = 0.25


class Scheduler:
    """Starts jobs as places come free. All its methods are called in the emulator's loop."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lines: dict[Endpoint, Line] = {}
        self._tickets: dict[Job, Ticket] = {}
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
        return None if self._line(endpoint).has_room else endpoint.limit

    @contextlib.contextmanager
    def direct_run(self, job: Job, endpoint: Endpoint) -> Generator[None]:
        """Count a job that the current task runs past the queue."""
        self._direct[job] = asyncio.current_task()
        job.status = "IN_PROGRESS"
        self.enter(endpoint)
        self._platform.record.ring()
        try:
            yield
        finally:
            job.status = "COMPLETED"
            del self._direct[job]
            self.leave(endpoint)

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
        ticket = Ticket(job, self._line(endpoint), self._numbers)
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
        job.call_off()
        ticket.line.endpoint.counters.cancelled += is_first
        if ticket.task is None:
            self._withdraw(ticket)
            self._complete(ticket, cancelled())
            return "OK"
        if is_first:
            self._in_background(self._call_off(ticket, ticket.task))
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
            job.call_off()
        await cancel_tasks(
            lambda: {task for task in running.values() if task is not None and not task.done()}
        )

    def stop(self) -> None:
        """Cancel whatever runs, and start nothing more."""
        self._stopped = True
        for ticket in self._tickets.values():
            ticket.job.call_off()
            if ticket.task is not None:
                ticket.task.cancel()

    def _line(self, endpoint: Endpoint) -> Line:
        line = self._lines.get(endpoint)
        if line is None:
            line = self._lines[endpoint] = Line(endpoint)
        return line

    def _advance(self, line: Line) -> None:
        while len(line) and not self._stopped and self.limit_reached(line.endpoint) is None:
            ticket = line.first
            self._withdraw(ticket)
            self._start(ticket)

    def _withdraw(self, ticket: Ticket) -> None:
        """Take a job that does not run out of the queue."""
        ticket.line.endpoint.counters.queued -= 1
        if ticket.pause is None:
            ticket.line.remove(ticket)
            self._announce(ticket.line)
        else:
            ticket.pause.cancel()
            ticket.pause = None

    def _start(self, ticket: Ticket) -> None:
        endpoint = ticket.line.endpoint
        self.enter(endpoint)
        ticket.job.status = "IN_PROGRESS"
        run = collect(self._platform, endpoint, ticket.job)
        ticket.task = asyncio.get_running_loop().create_task(run)
        ticket.task.add_done_callback(partial(self._run_ended, ticket))
        ticket.job.changed()

    def _run_ended(self, ticket: Ticket, task: asyncio.Task[Reply]) -> None:
        ticket.task = None
        if self._stopped:
            return
        self.leave(ticket.line.endpoint)
        reply = _reply_of(task, ticket.job)
        trouble = None if ticket.job.cancelled else trouble_of(reply)
        if trouble is None:
            self._complete(ticket, reply)
        elif ticket.is_late:
            self._complete(ticket, missed_start_deadline())
        elif self._may_try_again(ticket, trouble):
            self._try_again(ticket)
        else:
            self._complete(ticket, reply)

    def _may_try_again(self, ticket: Ticket, trouble: Trouble) -> bool:
        ticket.failures[trouble] += 1
        allowed = retries_allowed(ticket.job.headers, trouble)
        if allowed is not None:
            return ticket.failures[trouble] <= allowed
        return ticket.job.executions < self._platform.settings.attempts

    def _try_again(self, ticket: Ticket) -> None:
        ticket.job.status = "IN_QUEUE"
        ticket.line.endpoint.counters.queued += 1
        doublings = min(ticket.job.executions - 1, _DOUBLINGS)
        pause = self._platform.settings.backoff * 2**doublings
        loop = asyncio.get_running_loop()
        ticket.pause = loop.call_later(pause, self._pause_ended, ticket)
        ticket.job.changed()

    def _pause_ended(self, ticket: Ticket) -> None:
        ticket.pause = None
        ticket.line.prepend(ticket)
        self._advance(ticket.line)

    def _deadline_passed(self, ticket: Ticket) -> None:
        ticket.is_late = True
        if ticket.task is None:
            self._withdraw(ticket)
            self._complete(ticket, missed_start_deadline())

    async def _call_off(self, ticket: Ticket, task: asyncio.Task[Reply]) -> None:
        if await ticket.line.endpoint.runner.cancel(ticket.job):
            task.cancel()

    def _complete(self, ticket: Ticket, reply: Reply) -> None:
        del self._tickets[ticket.job]
        if ticket.deadline is not None:
            ticket.deadline.cancel()
        ticket.line.endpoint.counters.completed += 1
        self._platform.jobs.complete(ticket.job, reply)
        self._platform.record.ring()

    def _announce(self, line: Line) -> None:
        if len(line) <= _SHORT_LINE:
            self._announce_now(line)
        elif not line.is_announcing:
            line.is_announcing = True
            asyncio.get_running_loop().call_later(_ANNOUNCE_EVERY, self._announce_now, line)

    def _announce_now(self, line: Line) -> None:
        line.is_announcing = False
        for job in line:
            job.changed()

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _reply_of(task: asyncio.Task[Reply], job: Job) -> Reply:
    if not task.cancelled():
        return task.result()
    return cancelled() if job.cancelled else internal_server_error()
