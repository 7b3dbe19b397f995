"""The progress of a batch for people: a bar on a terminal, and lines elsewhere."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Final, cast

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal
    from typing import TextIO

    from rich.progress import Progress as RichProgress

    from fal_async.batch.jobs import Progress

__all__ = ["describe_progress", "report_progress"]

#: The time between two reports, in seconds: on a terminal or to a function, and elsewhere.
SHORT_INTERVAL: Final = 1.0
LONG_INTERVAL: Final = 30.0


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
        eta = timedelta(seconds=int(progress.eta.total_seconds()))
        parts.append(f"eta {str(eta).removeprefix('0:')}")
    if progress.cost is not None:
        of_budget = "" if budget is None else f" of {budget}"
        about = progress.cost_at_end
        at_end = "" if about is None else f" (about {about:.2f} in all)"
        parts.append(f"cost {progress.cost:.2f}{of_budget}{at_end}")
    counts = {"failed": progress.failed, "unsure": progress.unsure, "lost": progress.lost}
    parts += [f"{count:,} {name}" for name, count in counts.items() if count]
    return "  ".join(parts)


async def report_progress(
    read: Callable[[], Progress],
    report: Callable[[Progress], None] | None,
    budget: float | Decimal | None = None,
    stream: TextIO | None = None,
) -> None:
    """Report the progress until the task is cancelled, and once more then.

    Args:
        read: Returns the progress.
        report: Called with it. ``None`` shows a bar on a terminal, and writes lines elsewhere.
        budget: The budget, or ``None``.
        stream: The stream of the bar or the lines; ``None`` is stderr.
    """
    target = cast("TextIO", stream or sys.stderr)
    shown = _make_progress(target) if report is None else None

    def show(progress: Progress) -> None:
        text = describe_progress(progress, budget)
        if shown is None:
            print(text, file=target, flush=True)
        else:
            shown.update(
                shown.task_ids[0], total=progress.total, completed=progress.done, text=text
            )

    tell = show if report is None else report
    interval = LONG_INTERVAL if report is None and shown is None else SHORT_INTERVAL
    with shown or nullcontext():
        try:
            while True:
                await anyio.sleep(interval)
                tell(read())
        finally:
            tell(read())


def _make_progress(stream: TextIO) -> RichProgress | None:
    """Return a bar with one task; ``None`` if the stream is no terminal, or rich is missing."""
    try:
        from rich.console import Console  # an extra
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
    except ModuleNotFoundError:
        return None
    console = Console(file=stream)
    if not (console.is_terminal or console.is_jupyter):
        return None
    text = TextColumn("{task.fields[text]}", markup=False)
    progress = RichProgress(BarColumn(bar_width=20), text, console=console, refresh_per_second=2)
    progress.add_task("", total=None, text="")
    return progress
