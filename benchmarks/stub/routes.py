"""Responses of the stub, by the first part of the path."""

from __future__ import annotations

import time
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.stub.connection import Connection

__all__ = ["respond"]

_OUTPUT: Final = orjson.dumps({"images": [{"url": "https://v3b.fal.media/files/b/cat.png"}]})
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_STREAM_END: Final = b"0\r\n\r\n"
_FILE_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n"
_BLOCK: Final = b"x" * 256 * 1024


def respond(connection: Connection) -> None:
    """Respond to the request."""
    host, _, rest = connection.path.lstrip("/").partition("/")
    route = _ROUTES.get(host)
    if route is None:
        connection.response(404, b"{}")
    else:
        route(connection, rest)


def _run(connection: Connection, path: str) -> None:
    _, is_stream, sizes = path.partition("/stream/")
    connection.platform.calls["stream" if is_stream else "run"] += 1
    if is_stream:
        events, size, pause = map(int, sizes.split("/"))
        _stream(connection, events, size, pause / 1e6)
    else:
        connection.response(200, _OUTPUT)


def _stream(connection: Connection, events: int, size: int, pause: float) -> None:
    """Send events of a size, with a delay in seconds before each but the first."""
    event = _chunk(b"data: %s\n\n" % orjson.dumps({"delta": "x" * size}))
    connection.write(_STREAM_HEAD)
    if pause:
        _write_slowly(connection, chain(repeat(event, events), [_STREAM_END]), pause)
    else:
        together = max(1, len(_BLOCK) // len(event))
        whole, rest = divmod(events, together)
        blocks = repeat(event * together, whole)
        connection.write_all(chain(blocks, [event * rest + _STREAM_END]))


def _write_slowly(connection: Connection, blocks: Iterator[bytes], pause: float) -> None:
    block = next(blocks, None)
    if block is not None:
        connection.write(block)
        connection.later(pause, partial(_write_slowly, connection, blocks, pause))


def _queue(connection: Connection, path: str) -> None:
    platform = connection.platform
    app, _, request = path.partition("/requests/")
    job, _, action = request.partition("/")
    platform.calls[action or ("result" if job else "submit")] += 1
    if not job:
        connection.response(200, platform.submit(app))
    elif action == "status/stream":
        connection.write(_STREAM_HEAD)
        _send_status(connection, job)
    elif action == "status":
        connection.response(*platform.status(job))
    else:
        connection.response(200, platform.result(job))


def _send_status(connection: Connection, job: str) -> None:
    """Send the current status, and the last one when the job has completed."""
    platform = connection.platform
    event = _chunk(b"data: %s\n\n" % platform.status(job)[1])
    left = platform.ends[job] - time.monotonic()
    if platform.has_ended(job):
        connection.write(event + _STREAM_END)
    else:
        connection.write(event)
        connection.later(max(left, 0.001), partial(_send_status, connection, job))


def _rest(connection: Connection, path: str) -> None:
    if path.startswith("tokens"):
        connection.response(200, b'"a-token"')
    elif path.startswith("storage/auth/token"):
        token = {"token": "t", "token_type": "Bearer", "expires_at": "2100-01-01T00:00:00+00:00"}
        connection.response(200, orjson.dumps({**token, "base_url": _cdn(connection)}))
    else:
        connection.response(404, b"{}")


def _files(connection: Connection, path: str) -> None:
    """Discard uploads; the name of a file to download is its size."""
    route = "part" if "/multipart/" in path and connection.method == "PUT" else connection.method
    connection.platform.calls[f"file {route}"] += 1
    if connection.method == "GET":
        size = int(path.rpartition("/")[2].partition(".")[0])
        whole, rest = divmod(size, len(_BLOCK))
        connection.write(_FILE_HEAD % size)
        connection.write_all(chain(repeat(_BLOCK, whole), [_BLOCK[:rest]]))
    elif connection.method == "PUT":
        status = 503 if connection.platform.fails(path.rpartition("/")[2]) else 200
        connection.response(status, b"{}", b'etag: "an-etag"\r\n')
    else:
        url = f"{_cdn(connection)}/files/b/upload.bin"
        connection.response(200, orjson.dumps({"access_url": url, "uploadId": "an-upload"}))


def _cdn(connection: Connection) -> str:
    return f"{connection.platform.origin}/cdn"


def _counts(connection: Connection, _: str) -> None:
    connection.platform.connections -= 1  # whoever asks this is no client
    connection.response(200, connection.platform.counts())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_ROUTES: dict[str, Callable[[Connection, str], None]] = {
    "run": _run,
    "queue": _queue,
    "rest": _rest,
    "cdn": _files,
    "counts": _counts,
}
