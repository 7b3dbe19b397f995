"""Whether an exchange is repeated, and after how long: one pure decision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from fal_async._protocol.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async._config import RetryPolicy

__all__ = ["Breakdown", "Retry", "pause_before_retry", "was_refused"]

#: The first pause's bound after a 429, in seconds: the platform's advice is 1, 2, 4, 8.
RATE_LIMIT_DELAY: Final = 1.0
#: More doublings than this would leave the range of numbers.
MAX_DOUBLINGS: Final = 60


class Retry(Enum):
    """What may be repeated."""

    #: Reading, cancelling, uploading a part: a repetition changes nothing.
    SAFE = auto()
    #: Reading what a model came to: as safe, but a 500 may be the model's own answer, replayed.
    REPLAYED = auto()
    #: Reading how a job failed that is known to have failed: the platform's first word is it.
    SETTLED = auto()
    #: Starting something that costs money: only when the first call was certainly not accepted.
    ON_REFUSAL = auto()
    #: Only when nothing was sent.
    UNSENT = auto()


_READING: Final = frozenset({Retry.SAFE, Retry.REPLAYED, Retry.SETTLED})


@dataclass(frozen=True, slots=True)
class Breakdown:
    """An exchange that broke before a whole reply had arrived.

    Attributes:
        reason: What broke, in words.
        sent: Whether any of the request may have reached the platform.
        request_id: The id of the request, where the head of the reply has told it.
        permanent: Whether trying again cannot help, because something has to be put right first.
    """

    reason: str
    sent: bool
    request_id: str | None = None
    permanent: bool = False


def pause_before_retry(
    outcome: Reply | Breakdown,
    retry: Retry,
    policy: RetryPolicy,
    *,
    attempt: int,
    elapsed: float,
    random: Callable[[], float],
    previous: Reply | None = None,
) -> float | None:
    """The seconds to wait before the exchange is tried again, or ``None`` to leave it at that.

    Args:
        outcome: What the last attempt came to.
        retry: What the operation allows.
        policy: What the client allows.
        attempt: The number of the last attempt, from 1.
        elapsed: Seconds since the first attempt began.
        random: A source of numbers from 0 up to 1.
        previous: The reply of the attempt before the last; ``None`` when there was none.
    """
    if attempt >= policy.attempts or not _may_repeat(outcome, retry):
        return None
    if retry is Retry.REPLAYED and previous is not None and _says_the_same(outcome, previous):
        return None
    pause = _pause(outcome, policy, attempt, random)
    if pause is None or elapsed + pause > policy.budget:
        return None
    return pause


def _may_repeat(outcome: Reply | Breakdown, retry: Retry) -> bool:
    if isinstance(outcome, Breakdown):
        return not outcome.permanent and (retry in _READING or not outcome.sent)
    if outcome.ok or outcome.missed_start or outcome.needs_retry is False:
        return False
    match retry:
        case Retry.SAFE | Retry.REPLAYED:
            return outcome.status_code in {408, 429} or outcome.status_code >= 500
        case Retry.SETTLED:
            return outcome.request_id is None and outcome.status_code >= 500
        case Retry.ON_REFUSAL:
            return was_refused(outcome)
        case Retry.UNSENT:
            return False


def was_refused(reply: Reply) -> bool:
    """Whether a reply proves that the job was not accepted, or is over and worth another try."""
    if reply.status_code == 429 and not reply.answered_by_app:
        return True
    if reply.status_code >= 500 and reply.needs_retry:
        return True
    return reply.status_code in {502, 503} and reply.request_id is None


def _says_the_same(outcome: Reply | Breakdown, previous: Reply) -> bool:
    """Whether a 500 repeats the one before: then it is no mishap of reading it."""
    return (
        isinstance(outcome, Reply)
        and outcome.status_code == previous.status_code == 500
        and outcome.body == previous.body
    )


def _pause(
    outcome: Reply | Breakdown, policy: RetryPolicy, attempt: int, random: Callable[[], float]
) -> float | None:
    base = policy.base_delay
    if isinstance(outcome, Reply):
        if outcome.retry_after is not None:
            asked = outcome.retry_after
            return asked if asked <= policy.max_retry_after else None
        if outcome.status_code == 429 and base:
            base = max(base, RATE_LIMIT_DELAY)
    bound = min(policy.max_delay, base * 2.0 ** min(attempt - 1, MAX_DOUBLINGS))
    return random() * bound
