"""The money and the failures of a batch: when to start no more jobs."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from fal_async.batch.options import Budget

if TYPE_CHECKING:
    from fal_async.batch.jobs import Job

__all__ = ["FailureWindow", "Rate", "Spending"]

#: The number of latest outcomes that a share of failures refers to.
WINDOW: Final = 200
#: The time over which the rate is measured, in seconds.
RATE_PERIOD: Final = 300.0


class Spending:
    """The costs of a batch, and the decision whether another job fits into its budget.

    Args:
        budget: The budget, or ``None``.
        price: The price of a unit, which is the cost of a job until costs are known.
        spent: The costs of earlier runs, or ``None``.
        paid: The number of jobs that had these costs; 0 if it is unknown.
    """

    def __init__(
        self,
        budget: float | Budget | None,
        price: Decimal | None,
        spent: Decimal | None,
        paid: int = 0,
    ) -> None:
        given = Budget(budget) if isinstance(budget, int | float) else budget
        self._budget = None if given is None else Decimal(str(given.amount))
        self._is_strict = given is not None and given.strict
        self._spent = spent or Decimal(0)
        self._sum = self._spent if paid else Decimal(0)
        self._count = paid
        self._highest = price or Decimal(0)
        self._price = price or Decimal(0)

    def add(self, job: Job) -> None:
        """Count the cost of a job that this run has collected."""
        if job.cost is not None:
            self._spent += job.cost
            self._sum += job.cost
            self._count += 1
            self._highest = max(self._highest, job.cost)

    @property
    def mean(self) -> Decimal | None:
        """The mean cost of a job; ``None`` if no cost is known."""
        return self._sum / self._count if self._count else self._price or None

    def can_start(self, in_flight: int) -> bool:
        """Return whether another job fits into the budget, beside those in flight."""
        if self._budget is None:
            return True
        expected = self._highest if self._is_strict else self.mean or Decimal(0)
        return self._spent + (in_flight + 1) * expected <= self._budget


class FailureWindow:
    """The failures among the latest outcomes.

    Args:
        stop_after: The number of failures, or their share among the latest outcomes, at which a
            batch stops. ``None`` never stops it.
    """

    def __init__(self, stop_after: int | float | None) -> None:
        self._limit = stop_after * WINDOW if isinstance(stop_after, float) else stop_after
        size = WINDOW if isinstance(stop_after, float) else None
        self._failures: deque[bool] = deque(maxlen=size)

    def add(self, *, failed: bool) -> bool:
        """Count an outcome; return whether the batch should stop."""
        if self._limit is None:
            return False
        if failed or self._failures.maxlen is not None:
            self._failures.append(failed)
        return failed and sum(self._failures) >= self._limit


class Rate:
    """The number of outcomes per second, over the latest minutes."""

    def __init__(self, now: float) -> None:
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])
        self._count = 0

    def add(self, now: float) -> None:
        """Count an outcome."""
        self._count += 1
        if now - self._samples[-1][0] >= 1:
            self._samples.append((now, self._count))
        while len(self._samples) > 2 and now - self._samples[0][0] > RATE_PERIOD:
            self._samples.popleft()

    def per_second(self, now: float) -> float:
        """Return the rate."""
        since, count = self._samples[0]
        return (self._count - count) / (now - since) if now > since else 0.0
