"""The benchmarks work, and what they count is right. How fast anything is, no test asks."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from benchmarks.benchmark import NAMES, Bar, load
from benchmarks.plot import CHARTS, Chart, plot
from benchmarks.rounds import Reading, Where, run_once, stub
from benchmarks.verdicts import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.benchmark import Benchmark, Case, Leg, Measures

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


#: What the test of the command runs.
BY_COMMAND = "growth"


def is_worth_a_test(name: str, leg: str) -> bool:
    """Each leg takes an interpreter of its own; the other event loops are tried in `run` only."""
    return name != BY_COMMAND and (name == "run" or not leg.endswith(("uvloop", "trio")))


LEGS = [
    (name, leg.name) for name in NAMES for leg in load(name).legs if is_worth_a_test(name, leg.name)
]
OURS = [(name, leg) for name, leg in LEGS if "our" in leg]


class Quick:
    """The quick forms, each leg run when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        def start(options: tuple[str, ...]) -> Where:
            return stack.enter_context(stub(options))

        self._stub = cache(start)
        self.measures = cache(self._measures)

    def _measures(self, name: str, leg: str) -> list[Measures]:
        """What a leg measured in each case; skips where its incumbent is not installed."""
        benchmark = load(name)
        return [self._run(benchmark, case, benchmark.leg(leg)) for case in benchmark.quick]

    def _run(self, benchmark: Benchmark, case: Case, leg: Leg) -> Measures:
        reading = run_once(benchmark, case, leg, self._stub(case.stub))
        if reading.final and leg.missing():
            pytest.skip(reading.error)
        assert reading.measures is not None, reading.error
        return reading.measures


@pytest.fixture(scope="module")
def quick() -> Iterator[Quick]:
    with ExitStack() as stack:
        yield Quick(stack)


@pytest.mark.parametrize(("name", "leg"), LEGS)
def test_every_leg_works(quick: Quick, name: str, leg: str) -> None:
    for found in quick.measures(name, leg):
        assert found["units"] > 0


@pytest.mark.parametrize(("name", "leg"), [each for each in LEGS if each[0] in {"run", "tls"}])
def test_every_run_is_one_request(quick: Quick, name: str, leg: str) -> None:
    (found,) = quick.measures(name, leg)

    assert found["calls"] == found["units"] == 40


@pytest.mark.parametrize(("name", "leg"), [each for each in OURS if each[0] in {"run", "tls"}])
def test_runs_open_one_connection_each(quick: Quick, name: str, leg: str) -> None:
    (found,) = quick.measures(name, leg)

    assert found["connections"] <= 8


@pytest.mark.parametrize("leg", ["ours (streams, then polls)", "ours, streams only"])
def test_streamed_job_takes_three_requests(quick: Quick, leg: str) -> None:
    (found,) = quick.measures("queue", leg)

    assert found["submit"] == found["result"] == 20
    assert (
        found["requests"] <= 3.05
    )  # one of 20 streams may have to be opened again on a busy machine
    assert found["connections"] <= 2 * 20


def test_a_job_that_is_polled_opens_no_stream(quick: Quick) -> None:
    (found,) = quick.measures("queue", "ours, polls only")

    assert found["status/stream"] == 0
    assert found["submit"] == found["result"] == 20
    assert found["status"] >= 20


@pytest.mark.parametrize("leg", [leg for name, leg in LEGS if name == "stream"])
def test_stream_is_one_request(quick: Quick, leg: str) -> None:
    (found,) = quick.measures("stream", leg)

    assert (found["streams"], found["units"]) == (2, 20)


@pytest.mark.parametrize("leg", [leg for name, leg in LEGS if name == "files"])
def test_an_upload_in_parts_sends_each_part_once(quick: Quick, leg: str) -> None:
    found, _ = quick.measures("files", leg)

    assert found["parts"] == 2 * 4
    assert found["posts"] == 2 * 2
    assert found["again_mb"] == 0


def test_failed_upload_part_is_retried_alone(quick: Quick) -> None:
    _, found = quick.measures("files", "ours, asyncio")

    assert found["posts"] == 2
    assert found["parts"] == 4 + 1


@pytest.mark.parametrize("leg", [leg for name, leg in LEGS if name == "downloads"])
def test_every_download_is_one_request(quick: Quick, leg: str) -> None:
    small, medium = quick.measures("downloads", leg)

    assert small["gets"] == small["units"] == 4
    assert medium["gets"] == medium["units"] == 2


BAR = Bar("wall", "wall_s", "case", "ours", against="theirs", at_most=0.5)


def readings(case: str, leg: str, *walls: float) -> list[Reading]:
    return [Reading(case, leg, number, {"wall_s": wall}) for number, wall in enumerate(walls)]


def test_ratios_are_taken_round_by_round() -> None:
    theirs, ours = readings("case", "theirs", 1, 10, 100), readings("case", "ours", 0.5, 2, 60)

    found = verdict(BAR, theirs + ours)

    assert found.found is not None
    assert (found.found.median, found.found.low, found.found.high) == (0.5, 0.2, 0.6)
    assert found.word == "ok"


def test_a_bar_that_is_not_reached_is_missed() -> None:
    theirs, ours = readings("case", "theirs", 1), readings("case", "ours", 0.51)

    assert verdict(BAR, theirs + ours).word == "missed"


def test_a_leg_without_measures_is_no_success() -> None:
    failed = [Reading("case", "ours", 0, error="boom")]

    assert verdict(BAR, readings("case", "theirs", 1) + failed).word == "not measured"


def test_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks", BY_COMMAND, "--quick", "--json", str(file)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)

    assert done.returncode == 0, done.stderr
    assert "requests a job" in done.stdout
    readings = json.loads(file.read_text())[BY_COMMAND]["readings"]
    assert [reading["leg"] for reading in readings] == [leg.name for leg in load(BY_COMMAND).legs]
    assert all(reading["measures"]["submit"] == 10 for reading in readings)


def test_soak_pays_each_job_once() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.03", "--faults", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "0 failed, 0 unsure, 0 lost" in done.stdout
    assert done.stdout.endswith(" jobs, 0 more were paid\n")


def test_an_unknown_name_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "nonsense"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)

    assert done.returncode == 2
    assert "no benchmark named nonsense" in done.stderr


def test_documentation_charts_are_current(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--plot", "--out", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)

    assert done.returncode == 0, done.stderr
    drawn = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    charts = ROOT / "docs" / "pages" / "charts"
    assert drawn == {path.name: path.read_text("utf-8") for path in charts.iterdir()}
    assert drawn.keys() == {f"{chart.benchmark}.svg" for chart in CHARTS}


def test_chart_has_a_bar_for_each_leg() -> None:
    chart = Chart("run", "a < b", "wall_s", ("case",), {"theirs": "theirs", "ours": "fal_async"})
    failed = [Reading("case", "theirs", 0, error="boom")]

    svg = ET.fromstring(plot(chart, failed + readings("case", "ours", 1, 3, 2)))

    texts = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["a < b", "case", "fal_async", "2"]


def test_charts_name_cases_and_legs_that_exist() -> None:
    for chart in CHARTS:
        benchmark = load(chart.benchmark)
        assert {case.name for case in benchmark.cases} >= set(chart.cases)
        assert {leg.name for leg in benchmark.legs} >= set(chart.legs)
