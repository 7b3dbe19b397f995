"""Those who wait for an endpoint."""

from __future__ import annotations

from collections import Counter, OrderedDict
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from fal_async.emulator._job import Job
    from fal_async.emulator._policy import Trouble
    from fal_async.emulator._registry import Endpoint
    from fal_async.emulator._replies import Reply


class Ticket:
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
        "is_late",
        "job",
        "line",
        "number",
        "pause",
        "task",
    )

    def __init__(self, job: Job, line: Line, number: int) -> None:
        self.job = job
        self.line = line
        self.number = number
        self.failures: Counter[Trouble] = Counter()
        self.task: asyncio.Task[Reply] | None = None
        self.pause: asyncio.TimerHandle | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.is_late = False


class Line:
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
        self._normal: OrderedDict[Job, Ticket] = OrderedDict()
        self._low: OrderedDict[Job, Ticket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._normal) + len(self._low)

    def __iter__(self) -> Iterator[Job]:
        return chain(self._normal, self._low)

    @property
    def has_room(self) -> bool:
        """Whether one more run may go on."""
        limit = self.endpoint.limit
        return limit is None or self.running < limit

    @property
    def first(self) -> Ticket:
        """Whose turn is next."""
        return next(iter((self._normal or self._low).values()))

    def append(self, ticket: Ticket) -> int:
        """Have a job wait; says how many are ahead of it."""
        ahead = len(self) if ticket.job.priority == "low" else len(self._normal)
        self._lane(ticket.job)[ticket.job] = ticket
        return ahead

    def prepend(self, ticket: Ticket) -> None:
        """Have a job wait ahead of the others of its priority."""
        lane = self._lane(ticket.job)
        lane[ticket.job] = ticket
        lane.move_to_end(ticket.job, last=False)

    def remove(self, ticket: Ticket) -> None:
        """Have a job wait no longer."""
        del self._lane(ticket.job)[ticket.job]

    def position(self, job: Job) -> int:
        """How many are ahead of a job; none of one that does not wait here."""
        return next((index for index, other in enumerate(self) if other is job), 0)

    def _lane(self, job: Job) -> OrderedDict[Job, Ticket]:
        return self._low if job.priority == "low" else self._normal
