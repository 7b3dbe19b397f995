"""Run one leg once and print its measures: `python -m benchmarks.leg BENCHMARK LEG WORK`."""

from __future__ import annotations

import json
import sys

from benchmarks.benchmark import load
from benchmarks.limits import allow_many_files
from benchmarks.work import Work


def main() -> None:
    benchmark, leg, work = sys.argv[1:]
    allow_many_files()
    print(json.dumps(load(benchmark).leg(leg).measure(Work(**json.loads(work)))))


if __name__ == "__main__":
    main()
