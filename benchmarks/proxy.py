"""The cost of a request of a web page that goes through a proxy, on the side of the proxy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import APP, KEY, ours_at
from benchmarks.loops import keep_in_flight, on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK", "make_app"]

_ROOT = Path(__file__).parent.parent
#: The folder with the packages of the official proxy.
_PACKAGES: Final = _ROOT / "tests" / "emulator" / "js"
_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def make_app() -> Any:
    """Return our proxy in front of the stub, for uvicorn."""
    from fal_async.proxy import FalProxy

    client = ours_at(os.environ["STUB_URL"])
    return FalProxy(client, allow=["bench/**"], authorize=lambda _: "visitor")


async def _ours_asyncio(work: Work) -> Measures:
    return await _through(_uvicorn("asyncio"), work)


async def _ours_uvloop(work: Work) -> Measures:
    return await _through(_uvicorn("uvloop"), work)


async def _express(work: Work) -> Measures:
    if not (_PACKAGES / "node_modules" / "express").exists():
        command = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"]
        await anyio.run_process(command, cwd=_PACKAGES)
    return await _through(["node", str(_ROOT / "benchmarks" / "express_proxy.cjs")], work)


def _uvicorn(loop: str) -> list[str]:
    options = ["--port", "0", "--loop", loop, "--http", "httptools", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", *options, "--factory", "benchmarks.proxy:make_app"]


async def _through(command: Sequence[str], work: Work) -> Measures:
    """Start a proxy in a process of its own, and measure that process."""
    from fal_async import PooledTransport

    with _proxy(command, work.url) as (url, process):
        async with httpx.AsyncClient(
            transport=PooledTransport(), base_url=url, timeout=None
        ) as visitor:
            if work["streams"]:
                return await _hold_streams(visitor, process, work)
            return await _send_requests(visitor, process, work)


@contextmanager
def _proxy(command: Sequence[str], stub_url: str) -> Iterator[tuple[str, Path]]:
    """Start a proxy; yield its URL and the folder with the facts about its process."""
    environ = os.environ | {
        "STUB_URL": stub_url,
        "FAL_KEY": KEY,
        "NODE_PATH": str(_PACKAGES / "node_modules"),
        "NODE_ENV": "production",
    }
    with subprocess.Popen(
        command, cwd=_ROOT, env=environ, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        try:
            lines: list[str] = []
            for line in server.stderr:
                lines.append(line)
                if found := re.search(r"running on (http://\S+)", line):
                    yield found[1], Path("/proc") / str(server.pid)
                    break
            else:
                raise RuntimeError(f"the proxy did not start: {''.join(lines)}")
        finally:
            server.kill()


async def _send_requests(visitor: httpx.AsyncClient, process: Path, work: Work) -> Measures:
    headers = {"x-fal-target-url": f"https://fal.run/{APP}"}

    async def call() -> None:
        response = await visitor.post(
            "/api/fal/proxy", headers=headers, json={"prompt": "a cat", "steps": 4}
        )
        assert response.status_code == 200, response.text

    for _ in range(work["warm_up"]):
        await call()
    before = _cpu_seconds(process)
    section = await keep_in_flight(call, work)
    requests = len(section.latencies) + work["in_flight"]
    cpu = 1e6 * (_cpu_seconds(process) - before) / requests
    return section.measures() | {"cpu_us": cpu, "memory_mb": _memory(process) / 1e6}


async def _hold_streams(visitor: httpx.AsyncClient, process: Path, work: Work) -> Measures:
    """Hold streams open at once, and measure the memory that the proxy takes for them."""
    path = f"stream/{work['events']}/{work['bytes']}/{work['pause_us']}"
    headers = {"x-fal-target-url": f"https://fal.run/{APP}/{path}"}
    open_streams = 0
    peak = 0.0
    received = 0

    async def read() -> None:
        nonlocal open_streams, peak, received
        async with visitor.stream(
            "POST", "/api/fal/proxy", headers=headers, json={"prompt": "a cat"}
        ) as response:
            assert response.status_code == 200, await response.aread()
            open_streams += 1
            async for chunk in response.aiter_raw():
                received += chunk.count(b"data: ")
                if open_streams == work["streams"]:
                    peak = max(peak, _memory(process))
            open_streams -= 1

    await _once(visitor, work)
    before, cpu = _memory(process), _cpu_seconds(process)
    section = work.section()
    with section:
        async with anyio.create_task_group() as group:
            for _ in range(work["streams"]):
                group.start_soon(read)
        section.units = received
    return section.measures() | {
        "cpu_us": 1e6 * (_cpu_seconds(process) - cpu) / max(1, received),
        "memory_mb": _memory(process) / 1e6,
        "kb_a_stream": max(0.0, peak - before) / 1e3 / work["streams"],
    }


async def _once(visitor: httpx.AsyncClient, work: Work) -> None:
    headers = {"x-fal-target-url": f"https://fal.run/{APP}/stream/2/{work['bytes']}/0"}
    response = await visitor.post("/api/fal/proxy", headers=headers, json={})
    assert response.status_code == 200, response.text


def _cpu_seconds(process: Path) -> float:
    """Return the CPU seconds of a process, user and system, all threads."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(process: Path) -> float:
    """Return the resident memory of a process, in bytes."""
    found = re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())
    return int(found[1]) * 1024 if found else 0.0


def _case(name: str, **numbers: int) -> Case:
    defaults = {"in_flight": 32, "calls": 0, "milliseconds": 20_000, "streams": 0, "warm_up": 0}
    return Case(name, defaults | numbers)


_EXPRESS = "@fal-ai/server-proxy, Express"
_REQUESTS, _STREAMS = "requests, 32 in flight", "200 streams"

BENCHMARK = Benchmark(
    name="proxy",
    title=__doc__ or "",
    baseline=_EXPRESS,
    legs=(
        Leg(_EXPRESS, on("asyncio", _express), programs=("node", "npm")),
        Leg("ours, uvicorn, asyncio", on("asyncio", _ours_asyncio), ("uvicorn",)),
        Leg("ours, uvicorn, uvloop", on("asyncio", _ours_uvloop), ("uvicorn", "uvloop")),
    ),
    cases=(
        _case(_REQUESTS, calls=8000, warm_up=1000),
        _case(_STREAMS, streams=200, events=40, bytes=200, pause_us=100_000),
    ),
    quick=(
        _case("20 requests", in_flight=2, calls=20, warm_up=1),
        _case("3 streams", streams=3, events=3, bytes=20, pause_us=10_000),
    ),
    columns=(
        Column("cpu_us", "CPU us a request or event"),
        Column("per_s", "a second"),
        Column("p50_ms", "median ms"),
        Column("memory_mb", "memory MB"),
        Column("kb_a_stream", "kB a stream"),
    ),
    bars=(
        Bar("CPU of a request, of Express", "cpu_us", _REQUESTS, "ours, uvicorn, uvloop",
            against=_EXPRESS, at_most=1.0),
    ),
)  # fmt: skip
