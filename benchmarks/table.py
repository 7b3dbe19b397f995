"""Tables of measures, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.verdicts import ratios, spread, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
    from benchmarks.rounds import Reading
    from benchmarks.verdicts import Spread

__all__ = ["bars", "tables"]


def tables(benchmark: Benchmark, cases: Sequence[Case], readings: Sequence[Reading]) -> str:
    """Return one table for each case, with a row for each leg."""
    return "\n\n".join(
        f"{benchmark.name}: {case.name}\n{_aligned(list(_rows(benchmark, case, readings)))}"
        for case in cases
    )


def bars(benchmark: Benchmark, readings: Sequence[Reading]) -> str:
    """Return one line for each bar."""
    rows = [["bar", "case", "measured (min-max)", "promised", ""]]
    for each in benchmark.bars:
        found = verdict(each, readings)
        measured = "-" if found.found is None else _with_range(found.found)
        rows.append([each.promise, each.case, measured, _promised(each), found.word])
    return _aligned(rows)


def _rows(benchmark: Benchmark, case: Case, readings: Sequence[Reading]) -> Iterator[list[str]]:
    first, *others = benchmark.columns
    by = f"/ {benchmark.baseline}"
    yield ["leg", first.title, by, *(column.title for column in others)]
    for leg in benchmark.legs:
        found = spread(readings, case.name, leg.name, first.measure)
        if found is None:
            yield [leg.name, _error(case, leg, readings)]
            continue
        bottom = (case.name, benchmark.baseline)
        ratio = ratios(readings, first.measure, (case.name, leg.name), bottom)
        cells = [_cell(readings, case, leg, column) for column in others]
        yield [leg.name, _with_range(found), "-" if ratio is None else _with_range(ratio), *cells]


def _cell(readings: Sequence[Reading], case: Case, leg: Leg, column: Column) -> str:
    found = spread(readings, case.name, leg.name, column.measure)
    return "-" if found is None else _number(found.median)


def _error(case: Case, leg: Leg, readings: Sequence[Reading]) -> str:
    errors = (
        reading.error
        for reading in readings
        if (reading.case, reading.leg) == (case.name, leg.name) and reading.error
    )
    return next(errors, "no measures")


def _promised(bar: Bar) -> str:
    return f"<= {bar.at_most:g}" if bar.at_most is not None else f">= {bar.at_least:g}"


def _with_range(found: Spread) -> str:
    if found.low == found.high:
        return _number(found.median)
    return f"{_number(found.median)} ({_number(found.low)}-{_number(found.high)})"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _aligned(rows: list[list[str]]) -> str:
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(len(row[place]) for row in full) for place in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
