"""Blocking calls: the cost of a call, of calls from 32 threads, and of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import APP, KEY, fal_client_at, ours_at
from benchmarks.loops import keep_in_flight, keep_threads_in_flight, on

if TYPE_CHECKING:
    from benchmarks.benchmark import Measures
    from benchmarks.work import Section, Work

__all__ = ["BENCHMARK"]

_ARGUMENTS = {"prompt": "a lighthouse at dawn", "seed": 7}
_EVENT_BYTES = 200


def _fal_client(work: Work) -> Measures:
    return _call_or_read(fal_client_at(work.url).SyncClient(KEY), work)


def _ours(work: Work) -> Measures:
    from fal_async import Hosts
    from fal_async.sync import SyncClient

    with SyncClient(KEY, hosts=Hosts.at(work.url)) as client:
        return _call_or_read(client, work)


async def _ours_async(work: Work) -> Measures:
    """Do the same in an event loop of its own: the cost without threads."""
    async with ours_at(work.url) as client:
        if work["events"]:
            await client.run(APP, _ARGUMENTS)
            section = work.section()
            with section:
                async for _ in client.stream(APP, _ARGUMENTS, path=_stream_path(work)):
                    section.units += 1
            return section.measures()
        call = client.subscribe if work["queued"] else client.run
        section = await keep_in_flight(lambda: call(APP, _ARGUMENTS), work)
        return section.measures() | _calls_made(section, work)


def _call_or_read(client: Any, work: Work) -> Measures:
    """Read a stream of events if the case has events, and otherwise make calls."""
    if work["events"]:
        return _read(client, work)
    call = client.subscribe if work["queued"] else client.run
    section = keep_threads_in_flight(lambda: call(APP, _ARGUMENTS), work)
    return section.measures() | _calls_made(section, work)


def _read(client: Any, work: Work) -> Measures:
    client.run(APP, _ARGUMENTS)
    section = work.section()
    with section:
        section.units = sum(1 for _ in client.stream(APP, _ARGUMENTS, path=_stream_path(work)))
    return section.measures()


def _stream_path(work: Work) -> str:
    return f"/stream/{work['events']}/{_EVENT_BYTES}/0"


def _calls_made(section: Section, work: Work) -> Measures:
    return {"calls": section.calls("submit" if work["queued"] else "run")}


def _calls(
    threads: int, calls: int = 10**9, milliseconds: int = 1500, *, queued: bool = False
) -> Case:
    """Make calls of ``run``, or of ``subscribe`` if ``queued``, whose jobs take no time."""
    numbers = {"in_flight": threads, "calls": calls, "milliseconds": milliseconds}
    name = ("one thread" if threads == 1 else f"{threads} threads") + (", queue" if queued else "")
    stub = ("--job-seconds", "0") if queued else ()
    return Case(name, {**numbers, "events": 0, "queued": int(queued)}, stub=stub)


def _events(count: int) -> Case:
    return Case("a fast stream", {"events": count})


_OFFICIAL, _OURS, _ASYNC = "fal_client, blocking", "ours, blocking", "ours, async"

BENCHMARK = Benchmark(
    name="facade",
    title=__doc__ or "",
    baseline=_OFFICIAL,
    legs=(
        Leg(_OFFICIAL, _fal_client, ("fal_client",)),
        Leg(_OURS, _ours),
        Leg(_ASYNC, on("uvloop", _ours_async), ("uvloop",)),
    ),
    cases=(_calls(1), _calls(32), _calls(32, queued=True), _events(20_000)),
    quick=(
        _calls(4, calls=20, milliseconds=20_000),
        _calls(4, calls=20, milliseconds=20_000, queued=True),
        _events(50),
    ),
    columns=(
        Column("wall_us", "us a call or event"),
        Column("per_s", "a second"),
        Column("cpu_us", "CPU us"),
        Column("p50_ms", "p50 ms"),
        Column("p99_ms", "p99 ms"),
        Column("peak_mb", "peak MB"),
        Column("stub_share", "stub's CPU"),
    ),
    bars=(
        Bar("wall of a call, of fal_client's", "wall_us", "one thread", _OURS,
            against=_OFFICIAL, at_most=0.3),
        Bar("wall of a call, of the async call's", "wall_us", "one thread", _OURS,
            against=_ASYNC, at_most=1.2),
        Bar("calls a second, of fal_client's", "per_s", "32 threads", _OURS,
            against=_OFFICIAL, at_least=2),
        Bar("us an event", "wall_us", "a fast stream", _OURS, at_most=20),
    ),
)  # fmt: skip
