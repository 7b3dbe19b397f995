"""Downloads to a file: time, CPU and memory."""

from __future__ import annotations

import os
import resource
import subprocess
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import ours_at
from benchmarks.loops import on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from benchmarks.benchmark import Measures
    from benchmarks.work import Section, Work

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


async def _by_hand(write: Callable[[Path, bytes], None], work: Work) -> Measures:
    """Read the body over our connection pool, and write the file in a thread."""
    import httpx

    from fal_async import PooledTransport

    async with httpx.AsyncClient(transport=PooledTransport()) as client:

        async def download(url: str, path: Path) -> None:
            content = (await client.get(url)).raise_for_status().content
            await anyio.to_thread.run_sync(write, path, content)

        return await _download(download, work)


def _write(path: Path, content: bytes) -> None:
    """Write a file, half of which may be there after a crash."""
    with path.open("wb") as file:
        file.write(content)


def _write_synced(path: Path, content: bytes) -> None:
    """Write a file that is on the disk before it appears, as ours is."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _curl(work: Work) -> Measures:
    """Download in another process. Its start is measured as well, which takes milliseconds."""
    with TemporaryDirectory() as folder:
        url = f"{_url(work, work['bytes'])}?[1-{work['files']}]"
        command = ["curl", "--silent", "--fail", "--output", f"{folder}/#1.bin", url]
        if (authority := os.environ.get("SSL_CERT_FILE")) is not None:
            command += ["--cacert", authority]
        section = work.section()
        cpu = -_cpu_of_children()
        with section:
            subprocess.run(command, check=True)
        cpu += _cpu_of_children()
        measures = _measures(section, work, Path(folder))
    del measures["growth_mb"]  # of this process
    return measures | {"cpu_us": 1e6 * cpu / work["files"]}


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def _ours(work: Work) -> Measures:
    async with ours_at(work.base) as client:
        return await _download(client.download, work)


async def _download(download: Callable[[str, Path], Awaitable[object]], work: Work) -> Measures:
    """Download files of the same size, after some small ones that warm up."""
    with TemporaryDirectory() as folder:
        names = (Path(folder, f"{number}.bin") for number in count())

        async def keep_on(url: str, left: Iterator[int]) -> None:
            for _ in left:
                await download(url, next(names))

        async def download_all(size: int, files: int) -> None:
            left = iter(range(files))
            async with anyio.create_task_group() as group:
                for _ in range(work["at_once"]):
                    group.start_soon(keep_on, _url(work, size), left)

        await download_all(_MIB, work["at_once"])
        section = work.section()
        with section:
            await download_all(work["bytes"], work["files"])
        return _measures(section, work, Path(folder))


def _url(work: Work, size: int) -> str:
    return f"{work.base}/cdn/files/b/{size}.bin"


def _measures(section: Section, work: Work, folder: Path) -> Measures:
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert sizes.count(work["bytes"]) >= work["files"]
    section.units = work["files"]
    return section.measures() | {
        "mb_per_s": work["files"] * work["bytes"] / 1e6 / section.wall,
        "gets": section.calls("file GET"),
    }


def _case(name: str, size: int, files: int, at_once: int = 1, stub: tuple[str, ...] = ()) -> Case:
    return Case(name, {"bytes": size, "files": files, "at_once": at_once}, stub=stub)


_WHOLE, _STREAMED, _CURL, _OURS = "httpx, whole", "httpx, streamed", "curl", "ours, asyncio"
_BY_HAND, _SYNCED = "by hand, in a thread", "by hand, synced"
_SMALL, _MEDIUM, _LARGE = "downloads of 8 kB", "downloads of 1 MiB", "download of 256 MiB"


def _bar(promise: str, measure: str, case: str, against: str, at_most: float) -> Bar:
    return Bar(promise, measure, case, _OURS, against=against, at_most=at_most)


BENCHMARK = Benchmark(
    name="downloads",
    title=__doc__ or "",
    baseline=_STREAMED,
    legs=(
        Leg(_WHOLE, on("asyncio", _httpx_whole)),
        Leg(_STREAMED, on("asyncio", _httpx_streamed)),
        Leg(_BY_HAND, on("asyncio", partial(_by_hand, _write))),
        Leg(_SYNCED, on("asyncio", partial(_by_hand, _write_synced))),
        Leg(_CURL, _curl, programs=("curl",)),
        Leg(_OURS, on("asyncio", _ours)),
        Leg("ours, uvloop", on("uvloop", _ours), ("uvloop",)),
        Leg("ours, trio", on("trio", _ours), ("trio",)),
    ),
    cases=(
        _case(_SMALL, 8000, 1000, at_once=16),
        _case(_MEDIUM, _MIB, 50),
        _case(_LARGE, 256 * _MIB, 1),
        _case("download of 256 MiB over TLS", 256 * _MIB, 1, stub=("--tls",)),
    ),
    quick=(_case(_SMALL, 8000, 4, at_once=2), _case(_MEDIUM, _MIB, 2)),
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
        _bar("memory growth, of httpx's, whole", "growth_mb", _LARGE, _WHOLE, 0.10),
        _bar("wall, of httpx's, streamed", "wall_s", _LARGE, _STREAMED, 0.8),
        _bar("wall, of httpx's, streamed", "wall_s", _MEDIUM, _STREAMED, 0.8),
        _bar("CPU, of httpx's, streamed", "cpu_us", _LARGE, _STREAMED, 1.25),
        _bar("CPU, of curl's", "cpu_us", _LARGE, _CURL, 2),
        _bar("CPU, of that by hand", "cpu_us", _SMALL, _BY_HAND, 1.2),
        _bar("CPU, of that by hand, synced", "cpu_us", _SMALL, _SYNCED, 1.2),
    ),
)
