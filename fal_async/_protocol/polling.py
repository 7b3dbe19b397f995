"""How long a wait that polls pauses between two looks at a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ALONE", "IN_LINE", "LINE_RATE", "Rhythm", "polling_pauses"]

#: Pauses vary by this part of themselves, so that jobs of one batch do not ask in step.
JITTER: Final = 0.25


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How pauses grow.

    Attributes:
        first: The first pause, in seconds.
        growth: Each pause is this many times the one before.
        longest: The longest pause, in seconds.
    """

    first: float
    growth: float
    longest: float


#: Of waits that hear of nothing but by asking. Half a pause, and so the delay of a result, is about
#: a tenth of the time waited until pauses are at their longest.
ALONE: Final = Rhythm(first=0.1, growth=1.25, longest=1.0)
#: Of waits in line for a place at the status streams. Jobs end in the order in which they stand in
#: line, more or less, so the place comes in time, and asking is for those whose turn does not.
IN_LINE: Final = Rhythm(first=2.0, growth=2.0, longest=15.0)
#: How often all who stand in line ask together, per second: about a hundredth of a processor.
LINE_RATE: Final = 20.0


def polling_pauses(random: Callable[[], float], rhythm: Rhythm) -> Iterator[float]:
    """Pauses in seconds, growing and jittered, without end.

    Args:
        random: A source of numbers from 0 up to 1.
        rhythm: How they grow.
    """
    pause = rhythm.first
    while True:
        yield pause * (1 + JITTER * (2 * random() - 1))
        pause = min(rhythm.longest, pause * rhythm.growth)
