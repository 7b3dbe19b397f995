"""The progress of a batch as one line, for people."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from decimal import Decimal
    from typing import TextIO

    from fal_async.batch.jobs import Progress

__all__ = ["describe_progress", "report_progress"]

#: The time between two reports, in seconds: on a terminal or to a function, and elsewhere.
SHORT_INTERVAL: Final = 1.0
LONG_INTERVAL: Final = 30.0
#: The width of a line on a terminal, in characters.
WIDTH: Final = 110


def describe_progress(progress: Progress, budget: float | Decimal | None = None) -> str:
    """Return a progress in words.

    Args:
        progress: The progress.
        budget: The budget, or ``None``.
    """
    total = "" if progress.total is None else f"/{progress.total:,}"
    parts = [f"{progress.done:,}{total}"]
    if progress.total:
        parts.append(f"{100 * progress.done // progress.total} %")
    parts.append(f"{progress.per_second:.1f}/s")
    parts.append(f"{progress.running} running of {progress.in_flight}")
    if progress.eta is not None and progress.done < (progress.total or 0):
        parts.append(f"eta {_clock(progress.eta)}")
    if progress.cost is not None:
        of_budget = "" if budget is None else f" of {budget}"
        about = progress.cost_at_end
        at_end = "" if about is None else f" (about {about:.2f} in all)"
        parts.append(f"cost {progress.cost:.2f}{of_budget}{at_end}")
    counts = {"failed": progress.failed, "unsure": progress.unsure, "lost": progress.lost}
    parts += [f"{count:,} {name}" for name, count in counts.items() if count]
    return "  ".join(parts)


def _clock(time_left: timedelta) -> str:
    minutes, seconds = divmod(int(time_left.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


async def report_progress(
    read: Callable[[], Progress],
    report: Callable[[Progress], None] | None,
    budget: float | Decimal | None = None,
    stream: TextIO | None = None,
) -> None:
    """Report the progress until the task is cancelled, and once more then.

    Args:
        read: Returns the progress.
        report: Called with it. ``None`` writes a line, which a terminal shows in place.
        budget: The budget, or ``None``.
        stream: The stream of the lines; ``None`` is stderr.
    """
    target = cast("TextIO", stream or sys.stderr)
    is_terminal = target.isatty()
    end = "\r" if is_terminal else "\n"
    latest = time.monotonic()

    def write(end: str) -> None:
        line = describe_progress(read(), budget)
        target.write((line[:WIDTH].ljust(WIDTH) if is_terminal else line) + end)
        target.flush()

    interval = SHORT_INTERVAL if report is not None or is_terminal else LONG_INTERVAL
    try:
        while True:
            await anyio.sleep(SHORT_INTERVAL)
            if time.monotonic() - latest >= interval - SHORT_INTERVAL / 2:
                latest = time.monotonic()
                report(read()) if report is not None else write(end)
    finally:
        report(read()) if report is not None else write("\n")
