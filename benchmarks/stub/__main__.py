"""Serve the stub: `python -m benchmarks.stub`. Its first line of output is its address, as JSON."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import orjson

from benchmarks.limits import allow_many_files
from benchmarks.stub.authority import local_authority
from benchmarks.stub.connection import Connection
from benchmarks.stub.platform import Platform

if TYPE_CHECKING:
    import ssl

_BACKLOG = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description="A stub of the platform, in one process.")
    parser.add_argument("--job-seconds", type=float, default=1.0, help="how long a queue job takes")
    parser.add_argument("--tls", action="store_true", help="serve TLS as well")
    parser.add_argument("--deflate", action="store_true", help="let sockets compress")
    parser.add_argument("--fail-part", type=int, default=0, help="which part fails at first")
    options = parser.parse_args()
    allow_many_files()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the shell ignores it
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with runner, contextlib.suppress(KeyboardInterrupt):
        platform = Platform(options.job_seconds, options.deflate, options.fail_part)
        runner.run(_serve(platform, tls=options.tls))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


async def _serve(platform: Platform, *, tls: bool) -> None:
    plain = await _listen(platform, None)
    platform.origin = f"http://127.0.0.1:{_port(plain)}"
    where = {"url": platform.origin, "secure_url": None, "authority": None}
    with ExitStack() as stack:
        servers = [plain]
        if tls:
            context, authority = stack.enter_context(local_authority())
            servers.append(await _listen(platform, context))
            where["secure_url"] = f"https://127.0.0.1:{_port(servers[-1])}"
            where["authority"] = authority
        print(orjson.dumps(where).decode(), flush=True)
        await asyncio.gather(*(server.serve_forever() for server in servers))


async def _listen(platform: Platform, context: ssl.SSLContext | None) -> asyncio.Server:
    serve = partial(Connection, platform)
    loop = asyncio.get_running_loop()
    return await loop.create_server(serve, "127.0.0.1", 0, backlog=_BACKLOG, ssl=context)


def _port(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


if __name__ == "__main__":
    main()
