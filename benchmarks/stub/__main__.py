"""Serve the stub: `python -m benchmarks.stub`. The first line of its output says where, as JSON."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
from functools import partial

import orjson

from benchmarks.limits import allow_many_files
from benchmarks.stub.connection import Connection
from benchmarks.stub.platform import Platform

_BACKLOG = 8192


def main() -> None:
    parser = argparse.ArgumentParser(description="A stub of the platform, in one process.")
    parser.add_argument("--job-seconds", type=float, default=1.0, help="how long a queue job takes")
    parser.add_argument("--certificate", help="serve TLS as well, with this file (key and chain)")
    options = parser.parse_args()
    allow_many_files()
    runner = asyncio.Runner(loop_factory=_loop_factory())
    with runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(_serve(Platform(options.job_seconds), options.certificate))


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


async def _serve(platform: Platform, certificate: str | None) -> None:
    plain = await _listen(platform, None)
    platform.origin = f"http://127.0.0.1:{_port(plain)}"
    servers, secure_url = [plain], None
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        secure = await _listen(platform, context)
        servers.append(secure)
        secure_url = f"https://127.0.0.1:{_port(secure)}"
    print(orjson.dumps({"url": platform.origin, "secure_url": secure_url}).decode(), flush=True)
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
