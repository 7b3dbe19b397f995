"""How long a wait that polls pauses between two looks at a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ALONE", "IN_LINE", "LONGEST", "Rhythm", "polling_pauses", "shared_interval"]

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
#: Of waits in the queue for a status stream. Jobs end more or less in the order in which they wait,
#: so most get a stream in time; asking is for those whose job ends before, and for long jobs, which
#: are asked about less often the longer they have waited.
IN_LINE: Final = Rhythm(first=2.0, growth=2.0, longest=15.0)
#: How often all waits of one endpoint in that queue ask together, per second. A thousand of them
#: look every two seconds at first. It costs about a tenth of a processor.
LINE_RATE: Final = 500.0
#: The longest interval between two looks at a job, in seconds, however many wait.
LONGEST: Final = 60.0


def shared_interval(waiting: int, rate: float) -> float:
    """Return the interval at which waits keep a rate together, in seconds, jitter excluded.

    Args:
        waiting: How many waits there are.
        rate: How often they may ask together, per second.
    """
    return min(LONGEST / (1 + JITTER), waiting / min(rate, LINE_RATE))


def polling_pauses(
    random: Callable[[], float], rhythm: Rhythm, at_least: Callable[[], float] = float
) -> Iterator[float]:
    """Pauses in seconds, growing and jittered, without end.

    Args:
        random: A source of numbers from 0 up to 1.
        rhythm: How they grow.
        at_least: Gives what a pause is at least, jitter excluded.
    """
    pause = rhythm.first
    while True:
        yield max(pause, at_least()) * (1 + JITTER * (2 * random() - 1))
        pause = min(rhythm.longest, pause * rhythm.growth)
