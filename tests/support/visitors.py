"""Visitors of an ASGI app, which send requests without a server in between."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from fal_async._net.tasks import open_task_group

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    App = Callable[[Any, Any, Any], Awaitable[None]]

__all__ = ["Exchange", "Received", "Visitor"]


@dataclass
class Received:
    """A response that a visitor has received."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Exchange:
    """A request in progress. The app is held until the visitor receives what it sends."""

    _to_app: Any
    _from_app: Any
    sent: int = field(default=0)

    async def send(self, chunk: bytes, *, more: bool = True) -> None:
        """Send a part of the body, when the app reads it."""
        await self._to_app.send({"type": "http.request", "body": chunk, "more_body": more})
        self.sent += 1

    async def disconnect(self) -> None:
        await self._to_app.send({"type": "http.disconnect"})

    async def head(self) -> Received:
        message = await self._from_app.receive()
        assert message["type"] == "http.response.start", message
        headers = {name.decode(): value.decode() for name, value in message["headers"]}
        return Received(message["status"], headers)

    async def chunk(self) -> bytes | None:
        """Return the next part of the body; ``None`` after the last."""
        message = await self._from_app.receive()
        body: bytes = message.get("body", b"")
        return body if body or message.get("more_body") else None


class Visitor:
    """A visitor of an app.

    Args:
        app: The app.
        headers: The headers of all requests.
    """

    def __init__(self, app: App, headers: Mapping[str, str] | None = None) -> None:
        self._app = app
        self._headers = headers or {}

    @asynccontextmanager
    async def open(
        self, method: str, target: str, **headers: str
    ) -> AsyncGenerator[Exchange, None]:
        """Send the head of a request."""
        all_headers = {"x-fal-target-url": target, **self._headers, **headers}
        scope = {
            "type": "http",
            "method": method,
            "path": "/api/fal/proxy",
            "query_string": b"",
            "headers": [
                (name.replace("_", "-").encode(), value.encode("utf-8"))
                for name, value in all_headers.items()
            ],
            "state": {},
        }
        to_app, receive = anyio.create_memory_object_stream[Any](0)
        send, from_app = anyio.create_memory_object_stream[Any](0)
        with to_app, receive, send, from_app:
            async with open_task_group() as group:

                async def run() -> None:
                    await self._app(scope, receive.receive, send.send)
                    send.close()

                group.start_soon(run)
                yield Exchange(to_app, from_app)
                group.cancel_scope.cancel()

    async def request(
        self, method: str, target: str, body: object = b"", **headers: str
    ) -> Received:
        """Send a request and receive its response."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-length": str(len(content)), **headers}
        async with self.open(method, target, **headers) as exchange, open_task_group() as group:

            async def send_body() -> None:
                await exchange.send(content, more=False)

            group.start_soon(send_body)
            received = await exchange.head()
            while (chunk := await exchange.chunk()) is not None:
                received.body += chunk
                if len(received.body) == int(received.headers.get("content-length", "-1")):
                    break
            group.cancel_scope.cancel()
        return received

    async def post(self, target: str, body: object = None, **headers: str) -> Received:
        return await self.request("POST", target, {} if body is None else body, **headers)

    async def get(self, target: str, **headers: str) -> Received:
        return await self.request("GET", target, **headers)
