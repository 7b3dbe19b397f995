"""Limits on the jobs in flight, adaptive ones for direct runs, and on the jobs being submitted."""

from __future__ import annotations

import math
from collections import deque
from typing import Final, Literal

from fal_async._net.waiters import Waiter

__all__ = [
    "MAX_QUEUED",
    "AdaptiveLimit",
    "AdjustableSlots",
    "FixedLimit",
    "QueueLimit",
    "SubmitLimit",
]

#: The bounds of the limit for the queue. More jobs in flight cost memory, and are no faster.
MIN_QUEUED: Final = 16
MAX_QUEUED: Final = 1000
#: The number of outputs that are received at once while their size is unknown.
FIRST_OUTPUTS: Final = 4
#: The size of the outputs that are received at once, in bytes.
OUTPUT_MEMORY: Final = 64_000_000
#: The first limit of direct runs.
FIRST_RUNS: Final = 4
#: The factor of the limit after the platform has refused a run.
DECREASE: Final = 0.8
#: The share of the limit that must be in use for the limit to grow.
DEMAND: Final = 0.8
#: The bounds of the slots of submits. More than the least are of use if the platform responds
#: slowly: as many as start so many jobs per second.
MIN_SUBMITS: Final = 8
MAX_SUBMITS: Final = 64
SUBMITS_PER_SECOND: Final = 400
#: The number of queued jobs, as a share of the running ones, above which submits need not hurry.
QUEUED_SHARE: Final = 0.5


class AdjustableSlots:
    """Slots that are assigned in the order of the requests, and whose number may change.

    Unlike that of `anyio.CapacityLimiter`, a free slot costs no step of the event loop.

    Args:
        total: The number of slots.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._waiters: deque[Waiter] = deque()

    @property
    def total(self) -> int:
        """The number of slots. After a decrease, more may be in use."""
        return self._total

    @total.setter
    def total(self, total: int) -> None:
        self._total = total
        self._assign()

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a slot."""
        return len(self._waiters)

    async def acquire(self, timeout: float | None = None) -> bool:
        """Acquire a slot; return false if none was free in time.

        Args:
            timeout: The longest time to wait, in seconds; ``None`` disables the timeout.
        """
        if self._used < self._total:  # a slot is never free while a call waits
            self._used += 1
            return True
        waiter = Waiter()
        self._waiters.append(waiter)
        try:
            await waiter.wait(timeout)
        except BaseException:
            if waiter.is_ready:
                self.release()
            raise
        finally:
            if not waiter.is_ready:
                self._waiters.remove(waiter)
        return waiter.is_ready

    def release(self) -> None:
        """Release a slot."""
        self._used -= 1
        self._assign()

    def _assign(self) -> None:
        while self._waiters and self._used < self._total:
            self._used += 1
            self._waiters.popleft().wake()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *exc_info: object) -> None:
        self.release()


class FixedLimit:
    """A limit that does not change.

    Attributes:
        value: The maximum number of jobs in flight.
        in_flight: The number of jobs in flight.
        outputs: Held while an output is received: the larger they are, the fewer at once.
    """

    def __init__(self, value: float) -> None:
        self.value: float = value
        self.in_flight = 0
        self.outputs: AdjustableSlots = AdjustableSlots(FIRST_OUTPUTS)

    def is_free(self, now: float) -> bool:
        """Return whether another job may start."""
        return self.in_flight < int(self.value)

    def observe_running(self, running: int) -> None:
        """Learn the number of jobs that runners execute at once."""

    def observe_output(self, size: int) -> None:
        """Learn the size of an output, in bytes."""
        self.outputs.total = max(1, OUTPUT_MEMORY // max(size, 1))

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
        self.value: float = max(self.value, min(2 * running, MAX_QUEUED))


class AdaptiveLimit(FixedLimit):
    """Additive increase and multiplicative decrease, for direct runs.

    Until the first refusal, the limit grows by one with each run; later by one with as many runs as
    the limit. A refusal reduces it, once for all runs that were sent before.

    Args:
        maximum: The upper bound of the limit.
    """

    def __init__(self, maximum: float) -> None:
        super().__init__(min(FIRST_RUNS, maximum))
        self._maximum = maximum
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
            self.value: float = min(self._maximum, self.value + growth)

    def refused(self, sent_at: float, now: float, retry_after: float | None) -> None:
        """Learn that a direct run was refused, because the account has too many."""
        self._was_refused = True
        if sent_at >= self._reduced_at:
            self.value = max(1.0, self.value * DECREASE)
            self._reduced_at = now
        self._paused_until = max(self._paused_until, now + (retry_after or 0.0))


class SubmitLimit:
    """The limits on the jobs that are being submitted.

    A crash leaves the inputs with a slot unsure. There are eight slots, unless runners are idle
    because the jobs of an account end faster than eight submits at a time can start others. Then
    there are more, as many as the latency of the platform gives a use.

    Requests are sent one at a time while enough jobs are waiting for runners, and at first, so that
    an account that is locked refuses one request.

    Args:
        given: The number of slots, or ``"auto"``.

    Attributes:
        slots: The slots of inputs from their claim until the job is known.
        requests: The slots of requests.
    """

    def __init__(self, given: int | Literal["auto"]) -> None:
        self._is_fixed = given != "auto"
        self._exact = float(MIN_SUBMITS if given == "auto" else given)
        self._latency = math.inf
        self.slots: AdjustableSlots = AdjustableSlots(self.value)
        self.requests: AdjustableSlots = AdjustableSlots(1)

    @property
    def value(self) -> int:
        """The number of slots."""
        return int(self._exact)

    def observe_submit(self, seconds: float, queued: int, running: int) -> None:
        """Learn from a job that was submitted.

        Args:
            seconds: The duration of the request.
            queued: The number of jobs that are waiting for a runner.
            running: The number of jobs that runners execute.
        """
        is_idle = queued <= running * QUEUED_SHARE
        if not self._is_fixed:
            self._latency = min(self._latency, seconds)
            maximum = min(MAX_SUBMITS, SUBMITS_PER_SECOND * self._latency)
            if not is_idle:
                self._exact -= 1 / self._exact
            elif self.slots.waiting:
                self._exact = min(maximum, self._exact + 1 / self._exact)
            self._exact = max(MIN_SUBMITS, self._exact)
            self.slots.total = self.value
        requests = self.requests.total
        self.requests.total = min(requests + 1, self.value) if is_idle else max(1, requests // 2)

    async def acquire_all(self) -> None:
        """Acquire all slots for good, and so wait until no job is being submitted."""
        for _ in range(self.value):
            await self.slots.acquire()
