"""One HTTP request to the gateway, and the reply to it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from fal_async.emulator._hosts.names import locate

if TYPE_CHECKING:
    from collections.abc import Callable

    from fal_async.emulator._replies import Message, RawHeaders, Receive, Reply, Send
    from fal_async.emulator._server import Connection

#: What pages of any origin may read of a reply.
_EXPOSED = (
    b"x-fal-request-id, x-fal-billable-units, x-fal-error-type, x-fal-needs-retry, "
    b"x-fal-request-timeout-type, x-fal-served-from, x-fal-runner-hints"
)
_CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-expose-headers", _EXPOSED),
]
#: What a runner's reply may not say to the caller.
_PRIVATE = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"x-fal-stop-runner", b"x-fal-request-id"}
)


class Exchange:
    """A request whose head has arrived, and the way to answer it.

    An exchange is an ASGI ``send``: what a runner sends passes through it and gets the platform's headers.

    Attributes:
        host: Which of the platform's hosts it is for.
        base: The URL of that host, in the style in which the client reached it.
        path: The path below the host, decoded, without a slash at either end.
        request_id: What the reply will call the request.
        status: The HTTP status of the reply, once it has begun.
    """

    __slots__ = (
        "_receive",
        "_send",
        "base",
        "body",
        "connection",
        "headers",
        "host",
        "method",
        "path",
        "query",
        "raw_path",
        "request_id",
        "status",
    )

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.connection: Connection = scope["state"]["connection"]
        self.method: str = scope["method"]
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.raw_path: str = scope["path"]
        self.query: str = scope["query_string"].decode("latin-1")
        self.host, self.base, self.path = locate(scope["scheme"], self.headers, self.raw_path)
        self.body = b""
        self.request_id: str | None = None
        self.status: int | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The query's parameters, the last of each name."""
        return dict(parse_qsl(self.query, keep_blank_values=True)) if self.query else {}

    async def read(self) -> None:
        """Read the body."""
        message = await self._receive()
        chunks = [message.get("body", b"")]
        while message.get("more_body", False):
            message = await self._receive()
            chunks.append(message.get("body", b""))
        self.body = b"".join(chunks)

    def divert(self, detour: Callable[[Send], Send]) -> None:
        """Have whatever is sent from now on pass through a detour."""
        self._send = detour(self._send)

    async def reply(self, reply: Reply) -> None:
        """Answer with this."""
        await reply.send(self)

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message, with the headers that every answer of the platform carries."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [pair for pair in message.get("headers", ()) if pair[0] not in _PRIVATE]
            message = {**message, "headers": headers + self._platform_headers()}
        await self._send(message)

    def _platform_headers(self) -> RawHeaders:
        if self.request_id is None:
            self.request_id = str(uuid.uuid4())
        headers = [(b"x-fal-request-id", self.request_id.encode("latin-1"))]
        if "origin" in self.headers:
            headers += _CORS
        return headers
