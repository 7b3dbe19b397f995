"""How long a wait that polls pauses between two looks at a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["polling_pauses"]

#: The first pause, in seconds: few jobs are quicker, and a user does not feel it.
FIRST: Final = 0.1
#: Each pause is this much longer than the one before.
GROWTH: Final = 1.25
#: The longest pause, in seconds.
LONGEST: Final = 1.0
#: A pause is at most this part of the time waited, so that the delay of a result stays in
#: proportion.
SHARE: Final = 0.1
#: Pauses vary by this part of themselves, so that jobs of one batch do not ask in step.
JITTER: Final = 0.25


def polling_pauses(random: Callable[[], float]) -> Iterator[float]:
    """Pauses in seconds, growing and jittered, without end.

    Args:
        random: A source of numbers from 0 up to 1.
    """
    pause, waited = FIRST, 0.0
    while True:
        jittered = pause * (1 + JITTER * (2 * random() - 1))
        yield jittered
        waited += jittered
        pause = max(FIRST, min(LONGEST, pause * GROWTH, waited * SHARE))
