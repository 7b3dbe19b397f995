"""Charts of a report, as SVG."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from benchmarks.rounds import Reading
from benchmarks.verdicts import spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["CHARTS", "Chart", "draw", "plot"]

_WIDTH, _BAR, _GAP, _LABELS, _VALUES = 760, 18, 14, 230, 70
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .title { font-size: 15px; font-weight: 600 }
  .group { font-weight: 600 }
  .value { fill: #555 }
"""
_OURS, _OTHERS = "#6d4aff", "#b8bcc6"


@dataclass(frozen=True)
class Chart:
    """Bars of one measure: a group for each case, a bar for each leg.

    Attributes:
        benchmark: The name of the benchmark; the file has the same name.
        title: The text above the bars.
        measure: The length of a bar: the median of the rounds.
        cases: The groups, by the names of their cases.
        legs: The labels of the bars by the names of their legs.
    """

    benchmark: str
    title: str
    measure: str
    cases: Sequence[str]
    legs: Mapping[str, str]


CHARTS = (
    Chart(
        "run",
        "Direct run: CPU time per call, in microseconds",
        "cpu_us",
        ("1 in flight", "32 in flight", "256 in flight"),
        {
            "fal_client, async": "fal_client",
            "httpx client": "httpx",
            "aiohttp": "aiohttp",
            "ours, asyncio": "fal_async",
        },
    ),
    Chart(
        "queue",
        "Queue jobs of one second, all at once: CPU time per job, in microseconds",
        "cpu_us",
        ("200 jobs", "400 jobs", "1,000 jobs"),
        {"fal_client": "fal_client", "ours (streams, then polls)": "fal_async"},
    ),
    Chart(
        "stream",
        "Stream: events per second",
        "per_s",
        ("flat out, 200 B", "flat out, 1 MB"),
        {
            "fal_client": "fal_client",
            "httpx-sse": "httpx-sse",
            "ours, asyncio": "fal_async",
        },
    ),
    Chart(
        "start",
        "Import the client and make a first call, in milliseconds",
        "total_ms",
        ("a fresh interpreter",),
        {"fal_client": "fal_client", "httpx": "httpx", "ours": "fal_async"},
    ),
)


def draw(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the charts of the benchmarks in a report, and return their files."""
    files = []
    for chart in CHARTS:
        if chart.benchmark in report:
            readings = [Reading(**reading) for reading in report[chart.benchmark]["readings"]]
            files.append(folder / f"{chart.benchmark}.svg")
            files[-1].write_text(plot(chart, readings), "utf-8")
    return files


def plot(chart: Chart, readings: Sequence[Reading]) -> str:
    """Return a chart as an SVG document."""
    bars = list(_bars(chart, readings))
    longest = max((value for _, _, value in bars), default=1.0)
    parts = [_label("title", 16, 15, chart.title)]
    top, group = 34, ""
    for case, leg, value in bars:
        if case != group:
            group = case
            top += _GAP
            parts.append(_label("group", 16, top, case))
        length = max(1.0, value / longest * (_WIDTH - _LABELS - _VALUES))
        color = _OURS if leg == "fal_async" else _OTHERS
        parts += [
            _label("", _LABELS - 8, top, leg, ' text-anchor="end"'),
            f'<rect x="{_LABELS}" y="{top + 2}" width="{length:.1f}" height="14" fill="{color}"/>',
            _label("value", round(_LABELS + length + 6), top, _number(value)),
        ]
        top += _BAR
    size = f'width="{_WIDTH}" height="{top + 16}" viewBox="0 0 {_WIDTH} {top + 16}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
        f"<title>{escape(chart.title)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect width="100%" height="100%" rx="6" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _bars(chart: Chart, readings: Sequence[Reading]) -> Iterator[tuple[str, str, float]]:
    """Yield case, label and median of each bar; legs without measures have none."""
    for case in chart.cases:
        for leg, label in chart.legs.items():
            found = spread(readings, case, leg, chart.measure)
            if found is not None:
                yield case, label, found.median


def _label(kind: str, x: float, top: float, text: str, more: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{top + 13}"{more}>{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
