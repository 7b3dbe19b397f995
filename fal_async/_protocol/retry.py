"""Retry rules, backoff and polling delays."""

from __future__ import annotations

import sys
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NamedTuple

from fal_async._protocol.response import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fal_async._config import RetryPolicy

__all__ = [
    "LONGEST",
    "POLLING",
    "WAITING_FOR_STREAM",
    "Backoff",
    "BackoffSchedule",
    "NetworkFailure",
    "Retry",
    "backoff_delays",
    "is_rejected",
    "retry_delay",
    "shared_interval",
]


#: The relative jitter of delays, so that the jobs of a batch are not polled at the same time.
JITTER: Final = 0.25


class BackoffSchedule(NamedTuple):
    """The growth of polling delays.

    Attributes:
        first: The first delay, in seconds.
        growth: The factor between two delays.
        longest: The longest delay, in seconds.
    """

    first: float
    growth: float
    longest: float


#: The schedule of waits that only poll. A result is late by half a delay, which is about a tenth of
#: the time waited until the delays are at their longest.
POLLING: Final = BackoffSchedule(first=0.1, growth=1.25, longest=1.0)


#: The schedule of waits in the queue for a status stream. Jobs end roughly in the order in which
#: they wait, so most get a stream in time. Polls are for jobs that end before, and for long jobs,
#: which are polled less often the longer they have waited.
WAITING_FOR_STREAM: Final = BackoffSchedule(first=2.0, growth=2.0, longest=15.0)


#: The polls of all waits of one endpoint in that queue, per second. A thousand waits poll every two
#: seconds at first, which costs about a tenth of a processor.
MAX_QUEUED_POLLS_PER_SECOND: Final = 500.0


#: The longest interval between two looks at a job, in seconds, however many wait.
LONGEST: Final = 60.0


def shared_interval(waiting: int, rate: float) -> float:
    """Return the interval at which waits keep a rate together, in seconds, jitter excluded.

    Args:
        waiting: How many waits there are.
        rate: How often they may ask together, per second.
    """
    return min(LONGEST / (1 + JITTER), waiting / min(rate, MAX_QUEUED_POLLS_PER_SECOND))


class Backoff:
    """Delays that grow, with jitter.

    Args:
        schedule: The growth of the delays.
    """

    __slots__ = ("_delay", "_schedule")

    def __init__(self, schedule: BackoffSchedule) -> None:
        self._schedule = schedule
        self._delay = schedule.first

    def next(self, random: Callable[[], float], at_least: float = 0.0) -> float:
        """Return the next delay, in seconds.

        Args:
            random: Returns random numbers from 0 up to 1.
            at_least: The minimum of the delay, without jitter.
        """
        delay, schedule = self._delay, self._schedule
        self._delay = min(schedule.longest, delay * schedule.growth)
        return max(delay, at_least) * (1 + JITTER * (2 * random() - 1))


def backoff_delays(
    random: Callable[[], float], schedule: BackoffSchedule, at_least: Callable[[], float] = float
) -> Iterator[float]:
    """Yield the delays of a `Backoff` in seconds, without end.

    Args:
        random: Returns random numbers from 0 up to 1.
        schedule: The growth of the delays.
        at_least: Returns the minimum of a delay, without jitter.
    """
    backoff = Backoff(schedule)
    while True:
        yield backoff.next(random, at_least())


#: The maximum of the first delay after a 429, in seconds: the platform recommends 1, 2, 4, 8.
RATE_LIMIT_DELAY: Final = 1.0


#: The least maximum of the first delay of an outage, in seconds.
OUTAGE_DELAY: Final = 0.25


#: More doublings would exceed the range of floats.
MAX_DOUBLINGS: Final = 60


class Retry(Enum):
    """The rule by which an operation may be retried."""

    #: Reading, cancelling, uploading a part: a retry changes nothing.
    IDEMPOTENT = auto()
    #: Reading an output: as safe, but a 500 may be the model's own error, replayed.
    RESULT = auto()
    #: Reading the error of a failed job: the first response with a request id is that error.
    FAILED_RESULT = auto()
    #: Starting a billable job: only if the platform certainly did not accept the request.
    IF_REJECTED = auto()
    #: Only if nothing was sent.
    IF_NOT_SENT = auto()


_RESULTS: Final = frozenset({Retry.RESULT, Retry.FAILED_RESULT})
_READING: Final = frozenset({Retry.IDEMPOTENT, *_RESULTS})


class NetworkFailure(NamedTuple):
    """A request that failed before a complete response was received.

    Attributes:
        reason: The cause, for people.
        sent: Whether any of the request may have reached the platform.
        request_id: The id of the request, if the response headers contained it.
        permanent: Whether a retry cannot succeed before the user has changed something.
    """

    reason: str
    sent: bool
    request_id: str | None = None
    permanent: bool = False


def retry_delay(
    outcome: Response | NetworkFailure,
    retry: Retry,
    policy: RetryPolicy,
    *,
    attempt: int,
    elapsed: float,
    random: Callable[[], float],
    previous: Response | None = None,
) -> float | None:
    """Return the seconds to wait before a retry, or ``None`` for no retry.

    Args:
        outcome: The outcome of the last attempt.
        retry: The rule of the operation.
        policy: The policy of the client.
        attempt: The number of the last attempt, from 1.
        elapsed: The seconds since the start of the first attempt.
        random: Returns random numbers from 0 up to 1.
        previous: The response of the attempt before the last; ``None`` if there was none.
    """
    if isinstance(outcome, Response) and outcome.ok:
        return None
    is_outage = (  # which says nothing about the job whose output is read
        isinstance(outcome, NetworkFailure)
        or outcome.status_code in {408, 429}
        or (
            outcome.status_code >= 500 and outcome.request_id is None and not outcome.is_from_runner
        )
    )
    is_persistent = (
        retry in _RESULTS and policy.attempts > 1 and is_outage and policy.result_budget > 0
    )
    attempts, budget = policy.attempts, policy.budget
    if is_persistent:
        attempts, budget = sys.maxsize, policy.result_budget
    if attempt >= attempts or not _is_retry_allowed(outcome, retry):
        return None
    if (
        retry is Retry.RESULT
        and previous is not None
        and isinstance(outcome, Response)
        and outcome.status_code == previous.status_code == 500
        and outcome.body == previous.body
    ):
        return None  # the model failed, not the request
    delay = _backoff_delay(outcome, policy, attempt, random, is_persistent=is_persistent)
    return None if delay is None or elapsed + delay > budget else delay


def _is_retry_allowed(outcome: Response | NetworkFailure, retry: Retry) -> bool:
    if isinstance(outcome, NetworkFailure):
        return not outcome.permanent and (retry in _READING or not outcome.sent)
    if outcome.is_start_timeout or outcome.needs_retry is False:
        return False
    match retry:
        case Retry.IDEMPOTENT | Retry.RESULT:
            return outcome.status_code in {408, 429} or outcome.status_code >= 500
        case Retry.FAILED_RESULT:
            return outcome.request_id is None and outcome.status_code >= 500
        case Retry.IF_REJECTED:
            return is_rejected(outcome)
        case Retry.IF_NOT_SENT:
            return False


def is_rejected(response: Response) -> bool:
    """Return whether a response proves that the job was not accepted, or asks for a retry."""
    if response.status_code == 429 and not response.is_from_runner:
        return True
    if response.status_code >= 500 and response.needs_retry:
        return True
    return response.status_code in {502, 503} and response.request_id is None


def _backoff_delay(
    outcome: Response | NetworkFailure,
    policy: RetryPolicy,
    attempt: int,
    random: Callable[[], float],
    *,
    is_persistent: bool,
) -> float | None:
    base, longest = policy.base_delay, policy.max_delay
    if isinstance(outcome, Response):
        if outcome.retry_after is not None:
            asked = outcome.retry_after
            return asked if is_persistent or asked <= policy.max_retry_after else None
        if outcome.status_code == 429 and base:
            base = max(base, RATE_LIMIT_DELAY)
    if attempt >= policy.attempts:  # an outage: whoever waits longer asks less often
        base, longest = max(base, OUTAGE_DELAY), max(longest, LONGEST)
    bound = min(longest, base * 2.0 ** min(attempt - 1, MAX_DOUBLINGS))
    return random() * bound
