"""Downloads to a file: time, CPU and memory."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import ours_at
from benchmarks.loops import on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK"]

_MIB = 1024 * 1024


async def _httpx_whole(work: Work) -> Measures:
    """Download a file in one piece, as users of the official client do, which has no downloads."""
    import httpx

    async with httpx.AsyncClient() as client:

        async def download(url: str, path: Path) -> None:
            content = (await client.get(url)).raise_for_status().content
            with path.open("wb") as file:
                file.write(content)

        return await _download(download, work)


async def _httpx_streamed(work: Work) -> Measures:
    """Download in chunks. Writing blocks the loop, and a lost connection ends the download."""
    import httpx

    async with httpx.AsyncClient() as client:

        async def download(url: str, path: Path) -> None:
            async with client.stream("GET", url) as response:
                response.raise_for_status()
                with path.open("wb") as file:
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)

        return await _download(download, work)


async def _ours(work: Work) -> Measures:
    async with ours_at(work.url) as client:
        return await _download(client.download, work)


async def _download(download: Callable[[str, Path], Awaitable[object]], work: Work) -> Measures:
    """Download files of the same size in turn, after a small one that warms up."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "file.bin")
        await download(f"{work.url}/cdn/files/b/{_MIB}.bin", path)
        section = work.section()
        with section:
            for _ in range(work["files"]):
                await download(f"{work.url}/cdn/files/b/{work['bytes']}.bin", path)
        assert os.path.getsize(path) == work["bytes"]  # noqa: ASYNC240, PTH202 -- nothing else runs
    section.units = work["files"]
    return section.measures() | {
        "mb_per_s": work["files"] * work["bytes"] / 1e6 / section.wall,
        "gets": section.calls("file GET"),
    }


def _case(name: str, size: int, files: int) -> Case:
    return Case(name, {"bytes": size, "files": files})


_WHOLE, _STREAMED, _OURS = "httpx, whole", "httpx, streamed", "ours, asyncio"
_LARGE = "download of 256 MiB"


def _bar(promise: str, measure: str, against: str, at_most: float) -> Bar:
    return Bar(promise, measure, _LARGE, _OURS, against=against, at_most=at_most)


BENCHMARK = Benchmark(
    name="downloads",
    title=__doc__ or "",
    baseline=_STREAMED,
    legs=(
        Leg(_WHOLE, on("asyncio", _httpx_whole)),
        Leg(_STREAMED, on("asyncio", _httpx_streamed)),
        Leg(_OURS, on("asyncio", _ours)),
        Leg("ours, uvloop", on("uvloop", _ours), ("uvloop",)),
        Leg("ours, trio", on("trio", _ours), ("trio",)),
    ),
    cases=(_case("downloads of 1 MiB", _MIB, 50), _case(_LARGE, 256 * _MIB, 1)),
    quick=(_case("downloads of 1 MiB", _MIB, 2),),
    columns=(
        Column("wall_s", "wall s"),
        Column("mb_per_s", "MB a second"),
        Column("cpu_us", "CPU us a file"),
        Column("growth_mb", "memory growth MB"),
        Column("gets", "requests"),
        Column("connections", "connections"),
        Column("stub_share", "stub's CPU"),
    ),
    bars=(
        _bar("memory growth, of httpx's, whole", "growth_mb", _WHOLE, 0.10),
        _bar("wall, of httpx's, streamed", "wall_s", _STREAMED, 1.25),
        _bar("CPU, of httpx's, streamed", "cpu_us", _STREAMED, 1.25),
    ),
)
