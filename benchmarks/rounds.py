"""Interleaved rounds: every leg once, each in a fresh process, then every leg again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.benchmark import Benchmark, Case, Leg, Measures

__all__ = ["Reading", "Where", "measure", "run_once", "stub"]

#: The address of a stub, which it prints when it starts.
Where: TypeAlias = dict[str, str | None]

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Reading:
    """The measures of one leg in one round of a case.

    Attributes:
        error: Why there are no measures.
        final: Whether it is no use to try again.
    """

    case: str
    leg: str
    round: int
    measures: Measures | None = None
    error: str = ""
    final: bool = False


def measure(
    benchmark: Benchmark, cases: Sequence[Case], rounds: int, *, tell: Callable[[str], None]
) -> list[Reading]:
    """Run all legs of a benchmark, round by round."""
    readings: list[Reading] = []
    for case in cases:
        with stub(case.stub) as where:
            lost: dict[str, Reading] = {}
            for number in range(rounds):
                for leg in _rotated(benchmark.legs, number):
                    tell(f"{benchmark.name}, {case.name}, round {number + 1}: {leg.name}")
                    reading = lost.get(leg.name) or run_once(benchmark, case, leg, where, number)
                    if reading.final:
                        lost[leg.name] = reading
                    readings.append(reading)
    return readings


def _rotated(legs: Sequence[Leg], by: int) -> list[Leg]:
    """Rotate the legs, so that none is always first or always after the same one."""
    start = by % len(legs)
    order = [*legs[start:], *legs[:start]]
    return order[::-1] if by % 2 else order


@contextmanager
def stub(options: Sequence[str]) -> Iterator[Where]:
    """Start a stub in its own process, and yield its address."""
    command = [sys.executable, "-m", "benchmarks.stub", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_ROOT) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGINT)  # lets it tidy up


def run_once(benchmark: Benchmark, case: Case, leg: Leg, where: Where, number: int = 0) -> Reading:
    """Run a leg in its own process."""
    if missing := leg.missing():
        needs = f"{' and '.join(missing)} not installed"
        return Reading(case.name, leg.name, number, error=needs, final=True)
    work = {name: where[name] for name in ("url", "secure_url")} | {"numbers": case.numbers}
    command = [sys.executable, "-m", "benchmarks.leg", benchmark.name, leg.name, json.dumps(work)]
    try:
        done = subprocess.run(
            command, capture_output=True, cwd=_ROOT, env=_environment(where), timeout=case.patience
        )
    except subprocess.TimeoutExpired:
        return Reading(
            case.name, leg.name, number, error=f"gave up after {case.patience:g} s", final=True
        )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"exit {done.returncode}"
        return Reading(case.name, leg.name, number, error=said.splitlines()[-1])
    return Reading(case.name, leg.name, number, json.loads(done.stdout.splitlines()[-1]))


def _environment(where: Where) -> dict[str, str]:
    """Return the environment without proxies and hosts, and with the trusted authority."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith("FAL_")
    }
    authority = where["authority"]
    return inherited if authority is None else inherited | {"SSL_CERT_FILE": authority}
