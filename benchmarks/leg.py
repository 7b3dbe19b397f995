"""Run one leg once and print its measures: `python -m benchmarks.leg QUESTION LEG WORK`."""

from __future__ import annotations

import json
import sys

from benchmarks.limits import allow_many_files
from benchmarks.question import load
from benchmarks.work import Work


def main() -> None:
    question, leg, work = sys.argv[1:]
    allow_many_files()
    print(json.dumps(load(question).leg(leg).measure(Work(**json.loads(work)))))


if __name__ == "__main__":
    main()
