"""An ASGI application with one route for each kind of response."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]

TEXT = b"the quick brown fox " * 1000


async def app(scope: Any, receive: Receive, send: Send) -> None:
    """Route by the first part of the path."""
    await _ROUTES[scope["path"].split("/")[1]](scope, receive, send)


async def _response(send: Send, *parts: bytes, status: int = 200, **headers: bytes) -> None:
    names = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": names})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


async def _read(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _echo(scope: Any, receive: Receive, send: Send) -> None:
    body = await _read(receive)
    await _response(send, body, content_length=b"%d" % len(body), x_method=scope["method"].encode())


async def _chunks(scope: Any, receive: Receive, send: Send) -> None:
    await _read(receive)
    await _response(send, *(b"%d," % number for number in range(100)))


async def _big(scope: Any, receive: Receive, send: Send) -> None:
    await _read(receive)
    await _response(send, *[b"x" * 65536] * 64)


async def _gzip(scope: Any, receive: Receive, send: Send) -> None:
    body = gzip.compress(TEXT)
    await _response(send, body, content_encoding=b"gzip", content_length=b"%d" % len(body))


async def _deflate(scope: Any, receive: Receive, send: Send) -> None:
    await _response(send, zlib.compress(TEXT), content_encoding=b"deflate")


async def _no_content(scope: Any, receive: Receive, send: Send) -> None:
    await _response(send, status=204)


async def _not_modified(scope: Any, receive: Receive, send: Send) -> None:
    await _response(send, status=304, etag=b'"x"')


async def _redirect(scope: Any, receive: Receive, send: Send) -> None:
    await _response(send, status=307, location=b"/echo", content_length=b"0")


async def _refuse(scope: Any, receive: Receive, send: Send) -> None:
    """Respond without reading the body of the request."""
    await _response(send, b"too big", status=413, content_length=b"7", connection=b"close")


_ROUTES = {
    "echo": _echo,
    "chunks": _chunks,
    "big": _big,
    "gzip": _gzip,
    "deflate": _deflate,
    "no-content": _no_content,
    "not-modified": _not_modified,
    "redirect": _redirect,
    "refuse": _refuse,
}
