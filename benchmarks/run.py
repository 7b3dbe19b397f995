"""Direct runs: the cost of one, by the number in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from benchmarks.benchmark import Bar, Benchmark, Case, Column, Leg
from benchmarks.clients import APP, KEY, fal_client_at, ours_at
from benchmarks.loops import keep_in_flight, keep_threads_in_flight, on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.benchmark import Measures
    from benchmarks.work import Section, Work

__all__ = ["BENCHMARK"]

_ARGUMENTS = {"prompt": "a lighthouse at dawn", "num_inference_steps": 28, "seed": 7}
_HEADERS = {"authorization": f"Key {KEY}"}


async def _fal_client(work: Work) -> Measures:
    client = fal_client_at(work.base).AsyncClient(KEY)
    return _measures(await keep_in_flight(lambda: client.run(APP, _ARGUMENTS), work))


def _fal_client_sync(work: Work) -> Measures:
    client = fal_client_at(work.base).SyncClient(KEY)
    return _measures(keep_threads_in_flight(lambda: client.run(APP, _ARGUMENTS), work))


async def _httpx_client(work: Work) -> Measures:
    import httpx

    async with httpx.AsyncClient(headers=_HEADERS, timeout=None) as client:
        return await _over_httpx(client, work)


async def _httpx_client_on_ours(work: Work) -> Measures:
    import httpx

    from fal_async import PooledTransport

    transport = PooledTransport()
    async with httpx.AsyncClient(headers=_HEADERS, timeout=None, transport=transport) as client:
        return await _over_httpx(client, work)


async def _over_httpx(client: Any, work: Work) -> Measures:
    url = f"{work.base}/run/{APP}"

    async def call() -> object:
        return (await client.post(url, json=_ARGUMENTS)).json()

    return _measures(await keep_in_flight(call, work))


async def _httpx_transport(work: Work) -> Measures:
    import httpx

    transport, url = httpx.AsyncHTTPTransport(), httpx.URL(f"{work.base}/run/{APP}")

    async def call() -> object:
        request = httpx.Request("POST", url, headers=_HEADERS, json=_ARGUMENTS)
        response = await transport.handle_async_request(request)
        await response.aread()
        return response.json()

    async with transport:
        return _measures(await keep_in_flight(call, work))


async def _aiohttp(work: Work) -> Measures:
    import aiohttp

    url = f"{work.base}/run/{APP}"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=_HEADERS, connector=connector) as session:

        async def call() -> object:
            async with session.post(url, json=_ARGUMENTS) as response:
                return await response.json()

        return _measures(await keep_in_flight(call, work))


async def _ours(work: Work) -> Measures:
    async with ours_at(work.base) as client:
        return _measures(await keep_in_flight(lambda: client.run(APP, _ARGUMENTS), work))


async def _ours_with_hook(work: Work) -> Measures:
    async with ours_at(work.base, hooks=lambda event: None) as client:
        return _measures(await keep_in_flight(lambda: client.run(APP, _ARGUMENTS), work))


async def _floor(work: Work) -> Measures:
    """Send a prepared request and wait for the end of its response: the minimum in Python."""
    host, port = urlsplit(work.base).netloc.split(":")
    loop = asyncio.get_running_loop()
    idle: deque[_Bare] = deque()

    async def call() -> object:
        if not idle:
            _, made = await loop.create_connection(_Bare, host, int(port))
            idle.append(made)
        connection = idle.pop()
        body = await connection.exchange(loop.create_future())
        idle.append(connection)
        return body

    measures = _measures(await keep_in_flight(call, work))
    for connection in idle:
        connection.close()
    return measures


class _Bare(asyncio.Protocol):
    """One request at a time, over one connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        import httptools
        import orjson

        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._decode: Callable[[bytes], object] = orjson.loads
        body = orjson.dumps(_ARGUMENTS)
        self._request = (
            b"POST /run/%s HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Key %s\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
            % (APP.encode(), KEY.encode(), len(body), body)
        )

    def exchange(self, response: asyncio.Future[object]) -> Awaitable[object]:
        self._response, self._body = response, b""
        self._transport.write(self._request)
        return response

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._response.set_result(self._decode(self._body))

    def close(self) -> None:
        self._transport.close()


def _measures(section: Section) -> Measures:
    return section.measures() | {"calls": section.calls("run")}


def _case(in_flight: int, *, calls: int = 10**9, milliseconds: int = 2000) -> Case:
    numbers = {"in_flight": in_flight, "calls": calls, "milliseconds": milliseconds}
    return Case(f"{in_flight} in flight", numbers, patience=60)


_OFFICIAL, _AIOHTTP, _FLOOR = "fal_client, async", "aiohttp", "floor: asyncio.Protocol"
_OURS = "ours, asyncio"
_OTHER_LOOPS = ("uvloop", "trio")


def _bar(case: int, against: str, at_most: float, leg: str = _OURS) -> Bar:
    promise = f"CPU of {leg}, of that of {against}"
    return Bar(promise, "cpu_us", f"{case} in flight", leg, against=against, at_most=at_most)


BENCHMARK = Benchmark(
    name="run",
    title=__doc__ or "",
    baseline=_OFFICIAL,
    legs=(
        Leg(_OFFICIAL, on("asyncio", _fal_client), ("fal_client",)),
        Leg("fal_client, threads", _fal_client_sync, ("fal_client",)),
        Leg("httpx client", on("asyncio", _httpx_client)),
        Leg("httpx transport", on("asyncio", _httpx_transport)),
        Leg(_AIOHTTP, on("asyncio", _aiohttp), ("aiohttp",)),
        Leg(_OURS, on("asyncio", _ours)),
        Leg("ours, asyncio, with a hook", on("asyncio", _ours_with_hook)),
        Leg("ours, uvloop", on("uvloop", _ours), ("uvloop",)),
        Leg("ours, trio", on("trio", _ours), ("trio",)),
        Leg("httpx client on our transport", on("asyncio", _httpx_client_on_ours)),
        Leg(_FLOOR, on("asyncio", _floor)),
    ),
    cases=tuple(_case(number) for number in (1, 32, 256, 1024)),
    quick=(_case(8, calls=40, milliseconds=20_000),),
    columns=(
        Column("cpu_us", "CPU us a call"),
        Column("per_s", "calls a second"),
        Column("p50_ms", "p50 ms"),
        Column("p99_ms", "p99 ms"),
        Column("connections", "connections"),
        Column("stub_share", "stub's CPU"),
    ),
    bars=(
        _bar(1, _OFFICIAL, 0.20),
        _bar(32, _OFFICIAL, 0.07),
        _bar(256, _OFFICIAL, 0.05),
        *(_bar(case, _AIOHTTP, 0.5) for case in (1, 32, 256)),
        _bar(1, _FLOOR, 2.0),
        _bar(32, _FLOOR, 2.2),
        _bar(256, _FLOOR, 2.5),
        *(
            _bar(case, _OURS, 1.1, f"ours, {loop}")
            for loop in _OTHER_LOOPS
            for case in (1, 32, 256)
        ),
        Bar("calls a second, of fal_client's", "per_s", "256 in flight", _OURS,
            against=_OFFICIAL, at_least=20),
        Bar("CPU, of that at 32", "cpu_us", "1024 in flight", _OURS,
            against=_OURS, against_case="32 in flight", at_most=1.3),
    ),
)  # fmt: skip
