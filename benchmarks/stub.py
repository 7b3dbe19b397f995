"""A stub of the platform that is fast enough not to be what is measured: `python -m benchmarks.stub`.

It answers runs at once, and lets queue jobs of any id take `--seconds`; statuses come by polling and by stream.
One process, one loop, one `asyncio.Protocol`. The first line of its output is its port.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import resource
import sys
import time
from collections import Counter
from typing import Final, cast

import httptools
import orjson

_OUTPUT: Final = orjson.dumps({"images": [{"url": "https://v3b.fal.media/files/b/cat.png"}], "seed": 7})
_HEADERS: Final = b"content-type: application/json\r\nx-fal-request-id: 764cabcf-b745-4b3e-ae38-1200304cf45b\r\n"


class Jobs:
    """When each job ends, and how often each route was called."""

    def __init__(self, seconds: float, port: int) -> None:
        self.seconds = seconds
        self.port = port
        self.ends: dict[str, float] = {}
        self.calls: Counter[str] = Counter()
        self.connections = 0
        self._ids = itertools.count()

    def submit(self, app: str) -> bytes:
        job = f"job-{next(self._ids)}"
        self.ends[job] = time.monotonic() + self.seconds
        base = f"http://127.0.0.1:{self.port}/queue/{app}/requests/{job}"
        return orjson.dumps({
            "status": "IN_QUEUE",
            "request_id": job,
            "response_url": base,
            "status_url": f"{base}/status",
            "cancel_url": f"{base}/cancel",
            "queue_position": 0,
        })

    def status(self, job: str) -> tuple[int, bytes]:
        if self.ends[job] <= time.monotonic():
            ended = self.ends[job]
            metrics = {"inference_time": self.seconds, "ended_at": ended}
            body = {"status": "COMPLETED", "request_id": job, "logs": None, "metrics": metrics}
            return 200, orjson.dumps(body)
        return 202, orjson.dumps({"status": "IN_PROGRESS", "request_id": job, "logs": None})


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        jobs.connections += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._timers: list[asyncio.TimerHandle] = []

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self._timers:
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        with contextlib.suppress(httptools.HttpParserError):
            self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.partition(b"?")[0].decode()

    def on_message_complete(self) -> None:
        host, _, rest = self._path.lstrip("/").partition("/")
        if host == "run":
            self._jobs.calls["run"] += 1
            self._reply(200, _OUTPUT)
        elif host == "counts":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            self._reply(200, orjson.dumps({
                **self._jobs.calls,
                "connections": self._jobs.connections,
                "cpu": usage.ru_utime + usage.ru_stime,
            }))
        else:
            self._queue(rest)

    def _queue(self, path: str) -> None:
        app, _, request = path.partition("/requests/")
        job, _, action = request.partition("/")
        self._jobs.calls[action or ("result" if job else "submit")] += 1
        if not job:
            self._reply(200, self._jobs.submit(app))
        elif action == "status/stream":
            self._stream(job)
        elif action == "status":
            self._reply(*self._jobs.status(job))
        else:
            self._reply(200, _OUTPUT)

    def _reply(self, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d OK\r\n%scontent-length: %d\r\n\r\n" % (status, _HEADERS, len(body))
        self._transport.write(head + body)

    def _stream(self, job: str) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self._event(job)
        left = self._jobs.ends[job] - time.monotonic()
        if left > 0:
            self._timers.append(asyncio.get_running_loop().call_later(left, self._end, job))
        else:
            self._transport.write(b"0\r\n\r\n")

    def _event(self, job: str, tail: bytes = b"") -> None:
        event = b"data: %s\n\n" % self._jobs.status(job)[1]
        self._transport.write(b"%x\r\n%s\r\n%s" % (len(event), event, tail))

    def _end(self, job: str) -> None:
        self._jobs.ends[job] = min(self._jobs.ends[job], time.monotonic())
        self._event(job, b"0\r\n\r\n")


async def serve(seconds: float) -> None:
    jobs = Jobs(seconds, 0)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(jobs), "127.0.0.1", 0, backlog=8192)
    jobs.port = server.sockets[0].getsockname()[1]
    print(jobs.port, flush=True)
    await server.serve_forever()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    runner = asyncio.Runner()
    with contextlib.suppress(ImportError):
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(serve(options.parse_args().seconds))


if __name__ == "__main__":
    sys.exit(main())
