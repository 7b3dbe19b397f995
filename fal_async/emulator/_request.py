"""Incoming request: host, path and response channel."""

from __future__ import annotations

import copy
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async.emulator._credentials import Account
    from fal_async.emulator._responses import Message, RawHeaders, Receive, Response, Send
    from fal_async.emulator._server.connection import Connection
    from fal_async.emulator._server.websocket import WebSocket

HostName: TypeAlias = Literal["run", "queue", "rest", "cdn", "ws", "platform", "control"]

#: Hosts by the first path segment, for clients to which all hosts have one origin.
_BY_PREFIX: dict[str, HostName] = {
    "run": "run",
    "queue": "queue",
    "rest": "rest",
    "cdn": "cdn",
    "ws": "ws",
    "platform": "platform",
    "_emulator": "control",
}
#: Hosts by the name in the URL, for clients that a hosts file directs here.
_BY_NAME: dict[str, HostName] = {
    "fal.run": "run",
    "falrun.com": "run",
    "queue.fal.run": "queue",
    "queue.falrun.com": "queue",
    "rest.fal.ai": "rest",
    "rest.alpha.fal.ai": "rest",
    "fal.media": "cdn",
    "v3.fal.media": "cdn",
    "v3b.fal.media": "cdn",
    "ws.fal.run": "ws",
    "api.fal.ai": "platform",
}

#: The path of the server proxy of the official JavaScript client, and the header with the real URL.
PROXY_PATH = "/api/fal/proxy"
_TARGET = "x-fal-target-url"
#: The targets that the official server proxy allows by default.
_PROXY_TARGETS = re.compile(
    r"(?:(?:queue\.)?fal\.run/.+)"
    r"|(?:rest\.fal\.ai/storage/upload/(?:initiate|complete-multipart)"
    r"\?storage_type=fal-cdn-v3)",
    re.DOTALL,
)

#: The response headers that pages of any origin may read.
_EXPOSED = (
    b"x-fal-request-id, x-fal-billable-units, x-fal-error-type, x-fal-needs-retry, "
    b"x-fal-request-timeout-type, x-fal-served-from, x-fal-runner-hints"
)
#: The headers of a runner's response that callers do not receive.
_PRIVATE = frozenset(
    {
        b"access-control-allow-credentials",
        b"access-control-allow-origin",
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"x-fal-request-id",
        b"x-fal-stop-runner",
    }
)


@dataclass(frozen=True, slots=True)
class Location:
    """The host and path of a URL.

    Attributes:
        host: The host. ``None`` for an unknown host.
        base: The URL of the host, in the form that the client uses.
        path: The path below the host, without leading or trailing slashes.
    """

    host: HostName | None
    base: str
    path: str


def resolve(scheme: str, authority: str, path: str) -> Location:
    """Return the location of a URL: by its name if that is the platform's, else by its path."""
    origin = f"{scheme}://{authority}"
    path = path.strip("/")
    if host := _BY_NAME.get(_without_port(authority.lower())):
        return Location(host, origin, path)
    prefix, _, rest = path.partition("/")
    return Location(_BY_PREFIX.get(prefix), f"{origin}/{prefix}", rest.strip("/"))


def cdn_base(location: Location) -> str:
    """Return the URL of the CDN, in the form that the client uses for another host."""
    scheme, _, rest = location.base.partition("://")
    authority, slash, _ = rest.partition("/")
    if slash:
        return f"{scheme}://{authority}/cdn"
    name = _without_port(authority)
    return f"{scheme}://v3.fal.media{authority.removeprefix(name)}"


def _without_port(authority: str) -> str:
    name, colon, port = authority.rpartition(":")
    return name if colon and port.isdigit() else authority


class Responder(Protocol):
    """Responds in the place of the hosts to requests that concern no registered endpoint."""

    async def respond(self, request: GatewayRequest) -> None:
        """Respond to a request.

        Raises:
            RejectedError: There is no response.
        """

    async def aclose(self) -> None:
        """Complete the work, and release all resources."""


class BodyTooLargeError(Exception):
    """The body of a request is larger than the limit."""


class GatewayRequest:
    """A request, and the channel for its response, which adds the headers of the platform.

    `send` is an ASGI ``send``, so that a runner's response can pass through it as it is produced.

    Attributes:
        connection: The connection of the client.
        method: The HTTP method.
        headers: The headers, names in lower case.
        raw_path: The path as the client sent it, decoded.
        query: The query string.
        location: The host and path.
        is_proxied: Whether the request came through the server proxy.
        is_forwarded: Whether a server proxy with the official allow-list forwards the request.
        cdn_base: The URL of the CDN, in the form that the client uses.
        warnings: Mistakes of the client that the platform accepts.
        body: The body, once it has been read.
        account: The account of the request, once its credentials have been checked.
        request_id: The request id in the response.
        status: The HTTP status of the response, once it has started.
        websocket: The WebSocket that was requested, or that carries this request. ``None`` for a
            plain HTTP request.
    """

    __slots__ = (
        "_receive",
        "_send",
        "account",
        "body",
        "cdn_base",
        "connection",
        "headers",
        "is_forwarded",
        "is_proxied",
        "location",
        "method",
        "query",
        "raw_path",
        "request_id",
        "status",
        "warnings",
        "websocket",
    )

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.connection: Connection = scope["state"]["connection"]
        self.method: str = scope["method"]
        raw_headers: RawHeaders = scope["headers"]
        self.headers: dict[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in raw_headers
        }
        self.raw_path: str = scope["path"]
        self.query: str = scope["query_string"].decode("latin-1")
        scheme = self._forwarded("proto") or scope["scheme"]
        authority = self._forwarded("host") or self.headers.get("host", "")
        self.location: Location = resolve(scheme, authority, self.raw_path)
        self.is_proxied: bool = self.raw_path.rstrip("/") == PROXY_PATH
        self.is_forwarded: bool = False
        self.cdn_base: str = cdn_base(self.location)
        if self.is_proxied:
            try:
                target = urlsplit(self.headers.get(_TARGET, ""))
            except ValueError:
                target = urlsplit("")
            address = target._replace(scheme="", fragment="").geturl().removeprefix("//")
            self.is_forwarded = _PROXY_TARGETS.fullmatch(address) is not None
            self.query = target.query
            self.location = resolve(target.scheme, target.netloc, unquote(target.path))
            # Pages upload directly, not through the proxy, so they need the emulated CDN.
            self.cdn_base = f"{scheme}://{authority}/cdn"
        self.warnings: list[str] = []
        self.body: bytes = b""
        self.account: Account | None = None
        self.request_id: str | None = None
        self.status: int | None = None
        self.websocket: WebSocket | None = scope.get("websocket")

    def _forwarded(self, name: str) -> str:
        """Return what the outermost proxy reports about the original request."""
        return self.headers.get(f"x-forwarded-{name}", "").partition(",")[0].strip()

    @property
    def parameters(self) -> dict[str, str]:
        """The query parameters, the last of each name."""
        return dict(parse_qsl(self.query, keep_blank_values=True)) if self.query else {}

    async def read(self, limit: float) -> bool:
        """Read the body.

        Args:
            limit: The maximum size of the body, in bytes.

        Returns:
            False if the client disconnected before the body was complete.

        Raises:
            BodyTooLargeError: The body exceeds the limit. What was read is discarded.
        """
        chunks: list[bytes] = []
        size = 0
        message: Message = {"more_body": True}
        while message.get("more_body", False):
            message = await self._receive()
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise BodyTooLargeError
            chunks.append(chunk)
        self.body = b"".join(chunks)
        return bool(message["type"] == "http.request")

    def upgrade(self) -> WebSocket:
        """Return the requested WebSocket, whose handshake response has the platform's headers."""
        websocket = self.websocket
        if websocket is None:
            raise RuntimeError("the request is not for a WebSocket")
        if not websocket.headers:
            websocket.headers = self._platform_headers()
        return websocket

    def over_websocket(self, body: bytes, headers: Mapping[str, str], send: Send) -> GatewayRequest:
        """Return a request that was received over the WebSocket of this request.

        Args:
            body: The body of the request.
            headers: The headers of the request.
            send: The ASGI ``send`` for the response.
        """
        request = copy.copy(self)
        request.method, request.headers, request.body = "POST", dict(headers), body
        request.request_id = request.status = None
        request._send = send
        return request

    def wrap_send(self, wrapper: Callable[[Send], Send]) -> None:
        """Wrap the ASGI ``send`` for all messages that are sent from now on."""
        self._send = wrapper(self._send)

    async def respond(self, response: Response) -> None:
        """Send a response."""
        await response.send(self.send)

    async def send(self, message: Message) -> None:
        """Send one ASGI message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: RawHeaders = message.get("headers", [])
            headers = [pair for pair in headers if pair[0] not in _PRIVATE]
            message = {**message, "headers": headers + self._platform_headers()}
        await self._send(message)

    def _platform_headers(self) -> RawHeaders:
        if self.request_id is None:
            self.request_id = str(uuid.uuid4())
        headers = [(b"x-fal-request-id", self.request_id.encode("latin-1"))]
        if origin := self.headers.get("origin"):
            # With these headers, pages may read the response, also when they send credentials.
            headers += [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-allow-credentials", b"true"),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"Origin"),
            ]
        return headers
