"""`python -m benchmarks [NAME ...] [--quick] [--rounds N] [--json FILE] [--plot [FILE ...]]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.benchmark import NAMES, load
from benchmarks.plot import draw
from benchmarks.rounds import measure
from benchmarks.table import bars, tables
from benchmarks.verdicts import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.benchmark import Benchmark
    from benchmarks.rounds import Reading

_ROUNDS = 5
_ROOT = Path(__file__).parent.parent
#: The reports that the charts of the documentation are drawn from.
_REPORTS = _ROOT / "benchmarks" / "results"
_CHARTS = _ROOT / "docs" / "pages" / "charts"
_PACKAGES = ("fal-async", "fal-client", "httpx", "httpx-sse", "aiohttp", "websockets", "uvloop")


def main() -> None:
    options = _parse(sys.argv[1:])
    if options.plot is not None:
        _plot(options.plot or sorted(_REPORTS.glob("*.json")), options.out)
        return
    report: dict[str, Any] = {"command": " ".join(sys.argv[1:]), "machine": _machine()}
    for name in options.names or NAMES:
        benchmark = load(name)
        print(f"\n{benchmark.title}\n")
        readings = _measure(benchmark, quick=options.quick, rounds=options.rounds)
        report[name] = {
            "readings": [asdict(reading) for reading in readings],
            "bars": [asdict(verdict(bar, readings)) for bar in benchmark.bars],
        }
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Compare fal_async with its alternatives."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all by default"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run one small round, to check that the benchmarks work",
    )
    parser.add_argument("--rounds", type=int, help=f"the number of rounds; {_ROUNDS} by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measures to a file")
    parser.add_argument(
        "--plot",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="draw charts of reports instead; by default those of the documentation",
    )
    parser.add_argument(
        "--out", type=Path, default=_CHARTS, metavar="FOLDER", help="the folder of the charts"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}")
    return options


def _plot(reports: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for report in reports:
        for chart in draw(json.loads(report.read_text("utf-8")), folder):
            print(chart)


def _measure(benchmark: Benchmark, *, quick: bool, rounds: int | None) -> list[Reading]:
    cases = benchmark.quick if quick else benchmark.cases
    readings = measure(benchmark, cases, rounds or (1 if quick else _ROUNDS), tell=_tell)
    _tell("")
    print(tables(benchmark, cases, readings))
    if benchmark.bars and not quick:
        print("\n" + bars(benchmark, readings))
    return readings


def _tell(text: str) -> None:
    """Show progress on a terminal, in one line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processors": os.cpu_count(),
        "packages": {package: _version(package) for package in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
