"""Uploads: time, CPU and memory; the cost of a part that fails."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import APP, KEY, fal_client_at, ours_at
from benchmarks.loops import on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK"]

_MIB = 1024 * 1024
#: The maximum number of attempts of an upload.
_TRIES = 3


async def _fal_client(work: Work) -> Measures:
    official = fal_client_at(work.url)
    vars(official).update(
        MULTIPART_CHUNK_SIZE=work["part"], MULTIPART_THRESHOLD=work["single_shot"]
    )
    client = official.AsyncClient(KEY)
    await client.run(APP, {})
    return await _upload(client.upload_file, work)


async def _ours(work: Work) -> Measures:
    from fal_async import Limits

    limits = Limits(part_size=work["part"], single_shot=work["single_shot"])
    async with ours_at(work.url, limits=limits) as client:
        await client.run(APP, {})
        return await _upload(client.upload_file, work)


async def _upload(upload: Callable[[Path], Awaitable[str]], work: Work) -> Measures:
    """Upload files of the same size, several at once, after a small one that warms up."""
    with TemporaryDirectory() as folder:
        small, large = Path(folder, "small.bin"), Path(folder, "large.bin")
        _write(small, 1)
        _write(large, work["bytes"])
        await upload(small)
        section = work.section()
        with section:
            await _keep_uploading(lambda: upload(large), work)
    section.units = work["files"]
    measures = section.measures()
    needed = -(-work["bytes"] // work["part"]) if work["bytes"] > work["single_shot"] else 0
    parts = section.calls("file part")
    return measures | {
        "mb_per_s": work["files"] * work["bytes"] / 1e6 / section.wall,
        "posts": section.calls("file POST"),
        "parts": parts,
        "again_mb": (parts - needed * work["files"]) * work["part"] / 1e6,
    }


async def _keep_uploading(upload: Callable[[], Awaitable[str]], work: Work) -> None:
    left = iter(range(work["files"]))

    async def keep_on() -> None:
        for _ in left:
            await _until_it_succeeds(upload)

    async with anyio.create_task_group() as group:
        for _ in range(work["at_once"]):
            group.start_soon(keep_on)


async def _until_it_succeeds(upload: Callable[[], Awaitable[str]]) -> None:
    """Repeat a whole upload that fails, for clients that do not retry parts."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(Exception):  # each client has its own
            await upload()
            return
    await upload()


def _write(path: Path, size: int) -> None:
    """Write a mebibyte of noise repeatedly."""
    noise = os.urandom(_MIB)
    with path.open("wb") as file:
        for start in range(0, size, _MIB):
            file.write(noise[: size - start])


def _case(
    name: str,
    size: int,
    files: int,
    at_once: int = 1,
    part: int = 10 * _MIB,
    single_shot: int = 100 * _MIB,
    stub: tuple[str, ...] = (),
) -> Case:
    numbers = {"bytes": size, "files": files, "at_once": at_once}
    return Case(name, numbers | {"part": part, "single_shot": single_shot}, stub=stub)


def _quick(name: str, files: int, stub: tuple[str, ...] = ()) -> Case:
    return _case(name, _MIB, files, files, part=_MIB // 4, single_shot=_MIB // 2, stub=stub)


_OFFICIAL, _OURS = "fal_client", "ours, asyncio"
_LARGE, _MANY = "upload of 256 MiB", "eight uploads of 90 MiB at once"


def _bar(promise: str, measure: str, at_most: float, case: str = _LARGE) -> Bar:
    return Bar(promise, measure, case, _OURS, against=_OFFICIAL, at_most=at_most)


BENCHMARK = Benchmark(
    name="files",
    title=__doc__ or "",
    baseline=_OFFICIAL,
    legs=(
        Leg(_OFFICIAL, on("asyncio", _fal_client), ("fal_client",)),
        Leg(_OURS, on("asyncio", _ours)),
        Leg("ours, uvloop", on("uvloop", _ours), ("uvloop",)),
        Leg("ours, trio", on("trio", _ours), ("trio",)),
    ),
    cases=(
        _case("uploads of 1 MiB", _MIB, 50),
        _case("uploads of 32 MiB", 32 * _MIB, 4),
        _case("upload of 64 MiB", 64 * _MIB, 1),
        _case(_LARGE, 256 * _MIB, 1),
        _case(_MANY, 90 * _MIB, 8, at_once=8),
        _case("upload of 256 MiB, one part fails", 256 * _MIB, 1, stub=("--fail-part", "13")),
    ),
    quick=(
        _quick("two uploads of 1 MiB at once", 2),
        _quick("upload of 1 MiB, one part fails", 1, stub=("--fail-part", "3")),
    ),
    columns=(
        Column("wall_s", "wall s"),
        Column("mb_per_s", "MB a second"),
        Column("cpu_us", "CPU us a file"),
        Column("growth_mb", "memory growth MB"),
        Column("posts", "requests besides"),
        Column("parts", "parts"),
        Column("again_mb", "MB sent again"),
        Column("connections", "connections"),
        Column("stub_share", "stub's CPU"),
    ),
    bars=(
        _bar("memory growth, of fal_client's", "growth_mb", 0.10),
        _bar("wall, of fal_client's", "wall_s", 0.6),
        _bar("CPU, of fal_client's", "cpu_us", 0.5),
        _bar("memory growth, of fal_client's", "growth_mb", 0.10, _MANY),
    ),
)
