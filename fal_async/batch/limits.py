"""Limits on the jobs in flight: for the queue, and adaptive ones for direct runs."""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_QUEUED", "AdaptiveLimit", "FixedLimit", "QueueLimit"]

#: The bounds of the limit for the queue. More jobs in flight cost memory, and are no faster.
MIN_QUEUED: Final = 16
MAX_QUEUED: Final = 1000
#: The first limit of direct runs.
FIRST_RUNS: Final = 4
#: The factor of the limit after the platform has refused a run.
DECREASE: Final = 0.8
#: The share of the limit that must be in use for the limit to grow.
DEMAND: Final = 0.8


class FixedLimit:
    """A limit that does not change.

    Attributes:
        value: The maximum number of jobs in flight.
        in_flight: The number of jobs in flight.
    """

    def __init__(self, value: float) -> None:
        self.value: float = value
        self.in_flight = 0

    def _change(self, value: float) -> None:
        self.value = value

    def is_free(self, now: float) -> bool:
        """Return whether another job may start."""
        return self.in_flight < int(self.value)

    def observe_running(self, running: int) -> None:
        """Learn the number of jobs that runners execute at once."""

    def succeeded(self) -> None:
        """Learn that a direct run was not refused."""

    def refused(self, sent_at: float, now: float, retry_after: float | None) -> None:
        """Learn that a direct run was refused, because the account has too many."""


class QueueLimit(FixedLimit):
    """Twice the number of jobs that were seen running at once, so that the queue is never empty."""

    def __init__(self) -> None:
        super().__init__(MIN_QUEUED)

    def observe_running(self, running: int) -> None:
        """Learn the number of jobs that runners execute at once."""
        self._change(max(self.value, min(2 * running, MAX_QUEUED)))


class AdaptiveLimit(FixedLimit):
    """Additive increase and multiplicative decrease, for direct runs.

    Until the first refusal, the limit grows by one with each run; later by one with as many runs as
    the limit. A refusal reduces it, once for all runs that were sent before.

    Args:
        largest: The upper bound of the limit.
    """

    def __init__(self, largest: float) -> None:
        super().__init__(min(FIRST_RUNS, largest))
        self._largest = largest
        self._was_refused = False
        self._reduced_at = float("-inf")
        self._paused_until = float("-inf")

    def is_free(self, now: float) -> bool:
        """Return whether another job may start."""
        return now >= self._paused_until and super().is_free(now)

    def succeeded(self) -> None:
        """Learn that a direct run was not refused."""
        if self.in_flight >= DEMAND * int(self.value):
            growth = 1 / self.value if self._was_refused else 1.0
            self._change(min(self._largest, self.value + growth))

    def refused(self, sent_at: float, now: float, retry_after: float | None) -> None:
        """Learn that a direct run was refused, because the account has too many."""
        self._was_refused = True
        if sent_at >= self._reduced_at:
            self._change(max(1.0, self.value * DECREASE))
            self._reduced_at = now
        self._paused_until = max(self._paused_until, now + (retry_after or 0.0))
