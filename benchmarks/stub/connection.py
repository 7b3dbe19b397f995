"""One connection of a client: requests are parsed, routed and answered at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, cast

import httptools
import orjson

if TYPE_CHECKING:
    from benchmarks.stub.platform import Platform

__all__ = ["Connection"]

_OUTPUT: Final = orjson.dumps({"images": [{"url": "https://v3b.fal.media/files/b/cat.png"}]})
_HEADERS: Final = (
    b"content-type: application/json\r\nx-fal-request-id: 764cabcf-b745-4b3e-ae38-1200304cf45b\r\n"
)
_EVENTS_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_LAST_CHUNK: Final = b"0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        platform.connections += 1
        self._parser = httptools.HttpRequestParser(self)
        self._timers: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

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
            self._platform.calls["run"] += 1
            self._reply(200, _OUTPUT)
        elif host == "queue":
            self._queue(rest)
        elif host == "counts":
            self._platform.connections -= 1  # whoever asks this is no client
            self._reply(200, self._platform.counts())
        else:
            self._reply(404, b"{}")

    def _queue(self, path: str) -> None:
        app, _, request = path.partition("/requests/")
        job, _, action = request.partition("/")
        self._platform.calls[action or ("result" if job else "submit")] += 1
        if not job:
            self._reply(200, self._platform.submit(app))
        elif action == "status/stream":
            self._status_stream(job)
        elif action == "status":
            self._reply(*self._platform.status(job))
        else:
            self._reply(200, self._platform.result(job))

    def _reply(self, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d OK\r\n%scontent-length: %d\r\n\r\n" % (status, _HEADERS, len(body))
        self._transport.write(head + body)

    def _status_stream(self, job: str) -> None:
        self._transport.write(_EVENTS_HEAD)
        self._status_event(job)
        if self._platform.has_ended(job):
            self._transport.write(_LAST_CHUNK)
        else:
            self._watch(job)

    def _watch(self, job: str) -> None:
        left = self._platform.ends[job] - time.monotonic()
        if left > 0:
            timer = asyncio.get_running_loop().call_later(left, self._watch, job)
            self._timers.append(timer)
        else:
            self._status_event(job, _LAST_CHUNK)

    def _status_event(self, job: str, tail: bytes = b"") -> None:
        event = b"data: %s\n\n" % self._platform.status(job)[1]
        self._transport.write(b"%x\r\n%s\r\n%s" % (len(event), event, tail))
