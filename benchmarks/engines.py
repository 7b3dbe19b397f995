"""The rows of Ray Data that are paid twice when a worker or the program is killed."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.killed import line_count, platform, start, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK", "worker_of"]

_SUBSCRIBE: Final = """
import sys
import ray
from fal_async import AsyncClient
class Draw:
    def __init__(self):
        self.client = AsyncClient()
    async def __call__(self, row):
        result = await self.client.subscribe("acme/app", {"n": row["id"]})
        return {**row, "drawn": result["n"]}
ray.init(num_cpus=4, include_dashboard=False)
rows = ray.data.range(int(sys.argv[1]), override_num_blocks=8)
rows.map(Draw, concurrency=2).write_parquet(sys.argv[2] + "/out")
"""
#: The same program with a checkpoint of each block that was written.
_CHECKPOINT: Final = _SUBSCRIBE.replace(
    "rows =",
    """\
from ray.data.checkpoint import CheckpointConfig
ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
    id_column="id", checkpoint_path=sys.argv[2] + "/checkpoint"
)
rows =""",
)
_ONCE: Final = """
import sys
import ray
import fal_async
ray.init(num_cpus=4, include_dashboard=False)
draw = {"application": "acme/app", "journal": sys.argv[2] + "/journal.db", "arguments": {"n": "id"}}
rows = ray.data.range(int(sys.argv[1]), override_num_blocks=8)
rows.map(
    fal_async.Once, fn_constructor_kwargs=draw, concurrency=2
).write_parquet(sys.argv[2] + "/out")
"""


def _kill(program: str) -> Callable[[Work], Measures]:
    """Return a leg that runs a program, and kills one of its workers or the program itself."""

    def measure(work: Work) -> Measures:
        datasets: Any = import_module("pyarrow.dataset")
        os.environ["RAY_DATA_DEFAULT_ASYNC_ROW_UDF_MAX_CONCURRENCY"] = "64"
        count = work["rows"]
        with (
            platform(lambda n: 0.1 + n % 7 * 0.03) as (fal, executions),
            tempfile.TemporaryDirectory() as folder,
        ):
            started = time.perf_counter()
            running = start(fal, program, count, folder)
            wait_for(running, executions, count // 2)
            if work["kills_worker"]:
                os.kill(worker_of(fal.key), signal.SIGKILL)
            else:
                running.kill()
                running.communicate()
                running = start(fal, program, count, folder)
            running.communicate()
            wall = time.perf_counter() - started
            table = datasets.dataset(folder + "/out").to_table(["id"])
            written: set[int] = set(table["id"].to_pylist())
        return {
            "units": count,
            "twice": executions.total() - len(executions),
            "missing": count - len(written),
            "lines": line_count(program),
            "wall_s": wall,
        }

    return measure


def worker_of(key: str) -> int:
    """Return the process id of a Ray worker that has this key in its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_worker = "ray::MapWorker" in (folder / "cmdline").read_text()
            if is_worker and key in (folder / "environ").read_text():
                return int(folder.name)
        except OSError:
            continue
    raise ProcessLookupError("no worker of Ray was found in /proc")


_OURS: Final = "ours, Once"
_NEEDS: Final = ("ray", "pyarrow", "starlette")

BENCHMARK = Benchmark(
    name="engines",
    title=__doc__ or "",
    baseline="Ray Data",
    legs=(
        Leg("Ray Data", _kill(_SUBSCRIBE), _NEEDS),
        Leg("Ray Data with its checkpoint", _kill(_CHECKPOINT), _NEEDS),
        Leg(_OURS, _kill(_ONCE), _NEEDS),
    ),
    cases=(
        Case("worker killed", {"rows": 5000, "kills_worker": 1}, patience=900),
        Case("program killed", {"rows": 5000, "kills_worker": 0}, patience=900),
    ),
    quick=(Case("worker killed", {"rows": 40, "kills_worker": 1}, patience=300),),
    columns=(
        Column("twice", "paid twice"),
        Column("missing", "missing"),
        Column("lines", "lines"),
        Column("wall_s", "wall s"),
    ),
    bars=tuple(
        Bar(f"rows {title}", measure, case, _OURS, at_most=0)
        for measure, title in (("twice", "paid twice"), ("missing", "missing"))
        for case in ("worker killed", "program killed")
    ),
)
