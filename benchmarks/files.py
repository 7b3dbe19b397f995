"""What do uploads take: time, CPU and memory?"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.clients import APP, KEY, fal_client_at, ours_at
from benchmarks.loops import on
from benchmarks.question import Bar, Case, Column, Leg, Question

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.question import Measures
    from benchmarks.work import Work

__all__ = ["QUESTION"]

_MIB = 1024 * 1024


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
    """Upload files of the same size, one after the other, and a small one before that counts."""
    with TemporaryDirectory() as folder:
        small, large = Path(folder, "small.bin"), Path(folder, "large.bin")
        _write(small, 1)
        _write(large, work["bytes"])
        await upload(small)
        section = work.section()
        with section:
            for _ in range(work["files"]):
                await upload(large)
    section.units = work["files"]
    measures = section.measures()
    return measures | {
        "mb_per_s": work["files"] * work["bytes"] / 1e6 / section.wall,
        "posts": section.calls("file POST"),
        "parts": section.calls("file part"),
    }


def _write(path: Path, size: int) -> None:
    """Noise, a mebibyte of it over and over."""
    noise = os.urandom(_MIB)
    with path.open("wb") as file:
        for start in range(0, size, _MIB):
            file.write(noise[: size - start])


def _case(
    name: str, size: int, files: int, part: int = 10 * _MIB, single_shot: int = 100 * _MIB
) -> Case:
    numbers = {"bytes": size, "files": files, "part": part, "single_shot": single_shot}
    return Case(name, numbers)


_OFFICIAL, _OURS, _LARGE = "fal_client", "ours, asyncio", "upload of 256 MiB"


def _bar(says: str, measure: str, at_most: float) -> Bar:
    return Bar(says, measure, _LARGE, _OURS, against=_OFFICIAL, at_most=at_most)


QUESTION = Question(
    name="files",
    asks=__doc__ or "",
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
        _case(_LARGE, 256 * _MIB, 1),
    ),
    quick=(_case("upload of 1 MiB in parts", _MIB, 1, part=_MIB // 4, single_shot=_MIB // 2),),
    columns=(
        Column("wall_s", "wall s"),
        Column("mb_per_s", "MB a second"),
        Column("cpu_us", "CPU us a file"),
        Column("growth_mb", "memory growth MB"),
        Column("posts", "requests besides"),
        Column("parts", "parts"),
        Column("connections", "connections"),
        Column("stub_share", "stub's CPU"),
    ),
    bars=(
        _bar("memory growth, of fal_client's", "growth_mb", 0.10),
        _bar("wall, of fal_client's", "wall_s", 0.6),
        _bar("CPU, of fal_client's", "cpu_us", 0.5),
    ),
)
