"""Streams: events per second, and the cost of an event."""

from __future__ import annotations

import time
from array import array
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import APP, KEY, fal_client_at, ours_at
from benchmarks.loops import on
from benchmarks.work import percentile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK"]

_ARGUMENTS = {"prompt": "tell me of the sea"}
_HEADERS = {"authorization": f"Key {KEY}"}


async def _fal_client(work: Work) -> Measures:
    client = fal_client_at(work.url).AsyncClient(KEY)
    path = _path(work)
    return await _read(lambda: client.stream(APP, _ARGUMENTS, path=path), work)


async def _httpx_sse(work: Work) -> Measures:
    import httpx
    from httpx_sse import aconnect_sse

    url = f"{work.url}/run/{APP}{_path(work)}"
    async with httpx.AsyncClient(headers=_HEADERS, timeout=None) as client:

        async def stream() -> AsyncIterator[object]:
            async with aconnect_sse(client, "POST", url, json=_ARGUMENTS) as source:
                async for event in source.aiter_sse():
                    yield event.json()

        return await _read(stream, work)


async def _aiohttp(work: Work) -> Measures:
    import aiohttp
    import orjson

    from fal_async._protocol.sse import SSEDecoder

    url = f"{work.url}/run/{APP}{_path(work)}"
    async with aiohttp.ClientSession(headers=_HEADERS) as session:

        async def stream() -> AsyncIterator[object]:
            async with session.post(url, json=_ARGUMENTS) as response:
                decoder = SSEDecoder()
                async for chunk in response.content.iter_any():
                    for event in decoder.feed(chunk):
                        yield orjson.loads(event.data)

        return await _read(stream, work)


async def _ours(work: Work) -> Measures:
    path = _path(work)
    async with ours_at(work.url) as client:
        return await _read(lambda: client.stream(APP, _ARGUMENTS, path=path), work)


def _path(work: Work) -> str:
    return f"/stream/{work['events']}/{work['bytes']}/{work['pause_us']}"


async def _read(stream: Callable[[], Any], work: Work) -> Measures:
    """Read streams in turn."""
    await _count(stream, array("d"))
    first = array("d")
    section = work.section()
    with section:
        for _ in range(work["streams"]):
            section.units += await _count(stream, first)
    measures = section.measures()
    return measures | {
        "first_ms": 1e3 * percentile(first, 0.5),
        "mb_per_s": measures["per_s"] * work["bytes"] / 1e6,
        "streams": section.calls("stream"),
    }


async def _count(stream: Callable[[], Any], first: array[float]) -> int:
    then, events = time.perf_counter(), 0
    async with aclosing(stream()) as source:
        async for _ in source:
            if not events:
                first.append(time.perf_counter() - then)
            events += 1
    return events


def _case(name: str, streams: int, events: int, size: int, pause_us: int = 0) -> Case:
    numbers = {"streams": streams, "events": events, "bytes": size, "pause_us": pause_us}
    return Case(name, numbers)


_OFFICIAL = "fal_client"
_FLAT_OUT, _LARGE, _PACED = "flat out, 200 B", "flat out, 1 MB", "every 5 ms, 200 B"

BENCHMARK = Benchmark(
    name="stream",
    title=__doc__ or "",
    baseline=_OFFICIAL,
    legs=(
        Leg(_OFFICIAL, on("asyncio", _fal_client), ("fal_client",)),
        Leg("httpx-sse", on("asyncio", _httpx_sse), ("httpx_sse",)),
        Leg("aiohttp and our decoder", on("asyncio", _aiohttp), ("aiohttp",)),
        Leg("ours, asyncio", on("asyncio", _ours)),
        Leg("ours, uvloop", on("uvloop", _ours), ("uvloop",)),
        Leg("ours, trio", on("trio", _ours), ("trio",)),
    ),
    cases=(
        _case(_FLAT_OUT, 5, 5000, 200),
        _case(_LARGE, 1, 50, 1_000_000),
        _case(_PACED, 1, 300, 200, 5000),
        _case("one event", 200, 1, 200),
    ),
    quick=(_case("10 events", 2, 10, 200),),
    columns=(
        Column("cpu_us", "CPU us an event"),
        Column("per_s", "events a second"),
        Column("mb_per_s", "MB a second"),
        Column("first_ms", "first event ms"),
        Column("peak_mb", "peak MB"),
        Column("stub_share", "stub's CPU"),
    ),
    bars=(
        Bar("events a second, of fal_client's", "per_s", _FLAT_OUT, "ours, asyncio",
            against=_OFFICIAL, at_least=8),
        Bar("events a second, of fal_client's", "per_s", _LARGE, "ours, asyncio",
            against=_OFFICIAL, at_least=2),
    ),
)  # fmt: skip
