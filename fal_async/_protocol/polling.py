"""How long a wait that polls pauses between two looks at a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["polling_pauses"]

#: The first pause, in seconds: few jobs are quicker, and a user does not feel it.
FIRST: Final = 0.1
#: Each pause is this much longer than the one before. So a result is late by about a tenth of the
#: time waited, half a pause, until pauses are at their longest.
GROWTH: Final = 1.25
#: The longest pause, in seconds.
LONGEST: Final = 1.0
#: Pauses vary by this part of themselves, so that jobs of one batch do not ask in step.
JITTER: Final = 0.25


def polling_pauses(random: Callable[[], float]) -> Iterator[float]:
    """Pauses in seconds, growing and jittered, without end.

    Args:
        random: A source of numbers from 0 up to 1.
    """
    pause = FIRST
    while True:
        yield pause * (1 + JITTER * (2 * random() - 1))
        pause = min(LONGEST, pause * GROWTH)
