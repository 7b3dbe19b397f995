"""Realtime messages: the cost of a round trip, one by one and pipelined."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import anyio

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import APP, KEY, fal_client_at, ours_at
from benchmarks.loops import on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.benchmark import Measures
    from benchmarks.work import Work

__all__ = ["BENCHMARK"]


async def _fal_client(work: Work) -> Measures:
    client = fal_client_at(work.base).AsyncClient(KEY)
    async with client.realtime(APP) as connection:
        return await _talk(connection.send, connection.recv, work)


async def _ours(work: Work) -> Measures:
    async with ours_at(work.base) as client, client.realtime(APP) as connection:
        return await _talk(connection.send, connection.recv, work)


async def _websockets(work: Work) -> Measures:
    import ormsgpack
    from websockets.asyncio.client import connect

    async with connect(_socket_url(work), max_size=None) as socket:

        async def send(message: object) -> None:
            await socket.send(ormsgpack.packb(message))

        async def receive() -> object:
            return ormsgpack.unpackb(await socket.recv(decode=False))

        return await _talk(send, receive, work)


async def _aiohttp(work: Work) -> Measures:
    import aiohttp
    import ormsgpack

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(_socket_url(work), max_msg_size=0, compress=15) as socket,
    ):

        async def send(message: object) -> None:
            await socket.send_bytes(ormsgpack.packb(message))

        async def receive() -> object:
            return ormsgpack.unpackb(await socket.receive_bytes())

        return await _talk(send, receive, work)


async def _picows(work: Work) -> Measures:
    import ormsgpack
    import picows

    received: asyncio.Queue[bytes] = asyncio.Queue()

    class Listener(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            received.put_nowait(frame.get_payload_as_bytes())

    transport, _ = await picows.ws_connect(Listener, _socket_url(work))

    async def send(message: object) -> None:
        transport.send(picows.WSMsgType.BINARY, ormsgpack.packb(message))

    async def receive() -> object:
        return ormsgpack.unpackb(await received.get())

    try:
        return await _talk(send, receive, work)
    finally:
        transport.disconnect()
        await transport.wait_disconnected()


def _socket_url(work: Work) -> str:
    return f"ws{work.base.removeprefix('http')}/run/{APP}/realtime"


async def _talk(
    send: Callable[[Any], Awaitable[None]], receive: Callable[[], Awaitable[object]], work: Work
) -> Measures:
    """Send messages with ``ahead`` of them in flight; 1 measures round trips."""
    message = {"prompt": "a lighthouse", "image": _image(work["bytes"])}
    await send(message)
    if await receive() != message:
        raise ValueError("the stub did not send back what it got")
    free = anyio.Semaphore(work["ahead"], fast_acquire=True)

    async def send_all() -> None:
        for _ in range(work["messages"]):
            await free.acquire()
            await send(message)

    section = work.section()
    with section:
        if work["ahead"] == 1:
            for _ in range(work["messages"]):
                await send(message)
                await receive()
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_all)
                for _ in range(work["messages"]):
                    await receive()
                    free.release()
    section.units = work["messages"]
    return section.measures()


def _image(size: int) -> bytes:
    """Return bytes that compress by half, between real images and JSON."""
    return os.urandom(size // 2) + bytes(size - size // 2)


def _case(name: str, size: int, messages: int, ahead: int = 1, stub: tuple[str, ...] = ()) -> Case:
    return Case(name, {"bytes": size, "messages": messages, "ahead": ahead}, stub=stub)


_OFFICIAL, _AIOHTTP, _OURS = "fal_client", "aiohttp and ormsgpack", "ours, asyncio"
_UVLOOP, _TRIO = "ours, uvloop", "ours, trio"
_SMALL, _PIPELINED = "200 B, one by one", "200 B, 100 under way"
_MEDIUM, _TLS = "100 kB, one by one", "100 kB, one by one, over TLS"
_LARGE = "4 MB, one by one"
_DEFLATE = "100 kB, one by one, server compresses"


def _bar(case: str, at_most: float, against: str = _OFFICIAL, leg: str = _OURS) -> Bar:
    promise = f"CPU of {leg}, of that of {against}"
    return Bar(promise, "cpu_us", case, leg, against=against, at_most=at_most)


BENCHMARK = Benchmark(
    name="realtime",
    title=__doc__ or "",
    baseline=_OFFICIAL,
    legs=(
        Leg(_OFFICIAL, on("asyncio", _fal_client), ("fal_client", "msgpack")),
        Leg("websockets and ormsgpack", on("asyncio", _websockets)),
        Leg(_AIOHTTP, on("asyncio", _aiohttp), ("aiohttp",)),
        Leg("picows and ormsgpack", on("asyncio", _picows), ("picows",)),
        Leg(_OURS, on("asyncio", _ours)),
        Leg(_UVLOOP, on("uvloop", _ours), ("uvloop",)),
        Leg(_TRIO, on("trio", _ours), ("trio",)),
    ),
    cases=(
        _case(_SMALL, 200, 3000),
        _case(_PIPELINED, 200, 10_000, ahead=100),
        _case(_MEDIUM, 100_000, 500),
        _case(_LARGE, 4_000_000, 20),
        _case(_TLS, 100_000, 300, stub=("--tls",)),
        _case(_DEFLATE, 100_000, 100, stub=("--deflate",)),
    ),
    quick=(
        _case("200 B, 4 under way", 200, 12, ahead=4),
        _case("100 kB, compressed", 100_000, 2, stub=("--deflate",)),
    ),
    columns=(
        Column("cpu_us", "CPU us a message"),
        Column("per_s", "messages a second"),
        Column("wall_us", "us a message"),
        Column("peak_mb", "peak MB"),
        Column("stub_share", "stub's CPU"),
    ),
    bars=(
        _bar(_SMALL, 0.65),
        _bar(_PIPELINED, 0.7),
        _bar(_PIPELINED, 1.0, against=_AIOHTTP),
        _bar(_MEDIUM, 0.9),
        _bar(_TLS, 0.9, against=_AIOHTTP),
        _bar(_LARGE, 0.9),
        _bar(_DEFLATE, 0.10),
        *(
            _bar(case, 1.1, against=_OURS, leg=leg)
            for leg in (_UVLOOP, _TRIO)
            for case in (_SMALL, _PIPELINED, _MEDIUM)
        ),
    ),
)
