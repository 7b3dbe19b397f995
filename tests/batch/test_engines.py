"""`Once` within engines whose processes are killed: each row is paid once."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from benchmarks.engines import worker_of
from tests.support.subprocesses import started

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path
    from subprocess import Popen

    from fal_async.emulator import Emulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        find_spec("ray") is None or find_spec("datasets") is None, reason="needs the extra engines"
    ),
]

ROWS = 300
DATASETS = """
import sys, datasets, fal_async
rows = datasets.Dataset.from_list([{"n": n} for n in range(int(sys.argv[1]))])
draw = fal_async.Once("acme/app", journal=sys.argv[2], arguments={"n": "n"}, concurrency=50)
print(sum(row["fal_error"] is None for row in rows.map(draw.map)))
"""
RAY = """
import sys, ray, fal_async
ray.init(num_cpus=4, include_dashboard=False)
draw = {"application": "acme/app", "journal": sys.argv[2], "arguments": {"n": "n"}}
rows = ray.data.from_items([{"n": n} for n in range(int(sys.argv[1]))], override_num_blocks=8)
drawn = rows.map(fal_async.Once, fn_constructor_kwargs=draw, concurrency=2).take_all()
print(sum(row["fal_error"] is None for row in drawn))
"""


@pytest.fixture
def executions(fal: Emulator) -> Counter[int]:
    """The executions of an app by input."""
    counts: Counter[int] = Counter()

    @fal.endpoint("acme/app")
    async def app(arguments: dict[str, Any]) -> dict[str, Any]:
        counts[arguments["n"]] += 1
        await anyio.sleep(0.2)
        return {"seed": arguments["n"]}

    return counts


def start(fal: Emulator, program: str, folder: Path) -> AbstractContextManager[Popen[str]]:
    command = [sys.executable, "-c", program, str(ROWS), str(folder / "journal.db")]
    return started(command, env={**os.environ, **fal.environ}, cwd=folder)


def test_killed_datasets_process_pays_once(
    fal: Emulator, executions: Counter[int], tmp_path: Path
) -> None:
    with start(fal, DATASETS, tmp_path) as process:
        fal.wait_for(lambda: executions.total() >= ROWS // 3, timeout=120)
        process.kill()
    with start(fal, DATASETS, tmp_path) as process:
        output, _ = process.communicate()
    assert str(ROWS) in output.splitlines()
    assert executions == Counter(range(ROWS))


@pytest.mark.skipif(sys.platform != "linux", reason="finds workers in /proc")
def test_killed_ray_worker_pays_once(
    fal: Emulator, executions: Counter[int], tmp_path: Path
) -> None:
    with start(fal, RAY, tmp_path) as process:
        fal.wait_for(lambda: executions.total() >= ROWS // 3, timeout=200)
        os.kill(worker_of(fal.key), signal.SIGKILL)
        output, _ = process.communicate()
    assert str(ROWS) in output.splitlines()  # beside messages of Ray
    assert executions == Counter(range(ROWS))
