"""Import a client, make the first call and print its cost: `python -m benchmarks.first_call`.

This module imports as little as it can, since imports are what is measured.
"""

from __future__ import annotations

import resource
import sys
import time

from benchmarks.memory import memory

_ARGUMENTS = {"prompt": "a lighthouse at dawn"}


def _fal_client(url: str) -> object:
    import asyncio

    from benchmarks.clients import APP, KEY, fal_client_at

    return asyncio.run(fal_client_at(url).AsyncClient(KEY).run(APP, _ARGUMENTS))


def _fal_client_sync(url: str) -> object:
    from benchmarks.clients import APP, KEY, fal_client_at

    return fal_client_at(url).SyncClient(KEY).run(APP, _ARGUMENTS)


def _httpx(url: str) -> object:
    import asyncio

    import httpx

    async def call() -> object:
        async with httpx.AsyncClient() as client:
            return (await client.post(f"{url}/run/bench/app", json=_ARGUMENTS)).json()

    return asyncio.run(call())


def _ours(url: str) -> object:
    import asyncio

    from benchmarks.clients import APP, ours_at

    async def call() -> object:
        async with ours_at(url) as client:
            return await client.run(APP, _ARGUMENTS)

    return asyncio.run(call())


def _ours_sync(url: str) -> object:
    from benchmarks.clients import APP, KEY
    from fal_async import Hosts
    from fal_async.sync import SyncClient

    with SyncClient(KEY, hosts=Hosts.at(url)) as client:
        return client.run(APP, _ARGUMENTS)


#: The module to import and the first call, by client.
CALLS = {
    "fal_client": ("fal_client", _fal_client),
    "fal_client, blocking": ("fal_client", _fal_client_sync),
    "httpx": ("httpx", _httpx),
    "ours": ("fal_async", _ours),
    "ours, blocking": ("fal_async.sync", _ours_sync),
}


def main() -> None:
    """Print seconds of import, bytes of import, and seconds and CPU seconds in all."""
    name, url = sys.argv[1:]
    package, call = CALLS[name]
    memory_then, cpu_then, then = memory(), _cpu(), time.perf_counter()
    __import__(package)
    imported, grown = time.perf_counter() - then, memory() - memory_then
    call(url)
    print(imported, grown, time.perf_counter() - then, _cpu() - cpu_then)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
