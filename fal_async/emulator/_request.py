"""Incoming request: host, path and response channel."""

from __future__ import annotations

import copy
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fal_async.emulator._responses import Message, RawHeaders, Receive, Response, Send
    from fal_async.emulator._server.http import Connection
    from fal_async.emulator._server.websocket import WebSocket

__all__ = []


HostName: TypeAlias = Literal["run", "queue", "rest", "cdn", "ws"]


#: The first path segment, where all hosts share one origin.
_BY_PREFIX: dict[str, HostName] = {
    "run": "run",
    "queue": "queue",
    "rest": "rest",
    "cdn": "cdn",
    "ws": "ws",
}


#: The name in the URL, where clients are led here by a hosts file.
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
}


@dataclass(frozen=True, slots=True)
class Location:
    """Where in the platform a URL leads.

    Attributes:
        host: The host; ``None`` when it leads nowhere.
        base: The URL of the host, in the style in which the client knows it.
        path: The path below the host, without slashes at its ends.
    """

    host: HostName | None
    base: str
    path: str


def resolve(scheme: str, authority: str, path: str) -> Location:
    """The place of a URL: by its name if that is the platform's own, else by its first segment."""
    origin = f"{scheme}://{authority}"
    path = path.strip("/")
    if named := _BY_NAME.get(_without_port(authority.lower())):
        return Location(named, origin, path)
    prefix, _, rest = path.partition("/")
    return Location(_BY_PREFIX.get(prefix), f"{origin}/{prefix}", rest.strip("/"))


def cdn_base(place: Location) -> str:
    """The URL of the CDN, in the style in which the client came to another host."""
    scheme, _, rest = place.base.partition("://")
    authority, slash, _ = rest.partition("/")
    if slash:
        return f"{scheme}://{authority}/cdn"
    name = _without_port(authority)
    return f"{scheme}://v3.fal.media{authority.removeprefix(name)}"


def _without_port(authority: str) -> str:
    name, colon, port = authority.rpartition(":")
    return name if colon and port.isdigit() else authority


#: Where the official JavaScript client looks for a server proxy, and how it names the real URL.
PROXY_PATH = "/api/fal/proxy"


_TARGET = "x-fal-target-url"


#: The targets that the official server proxy forwards to unless its owner says otherwise.
_PROXY_TARGETS = re.compile(
    r"(?:(?:queue\.)?fal\.run/.+)"
    r"|(?:rest\.fal\.ai/storage/upload/(?:initiate|complete-multipart)"
    r"\?storage_type=fal-cdn-v3)",
    re.DOTALL,
)


#: What pages of any origin may read of a response.
_EXPOSED = (
    b"x-fal-request-id, x-fal-billable-units, x-fal-error-type, x-fal-needs-retry, "
    b"x-fal-request-timeout-type, x-fal-served-from, x-fal-runner-hints"
)


#: What a runner's response does not say to the caller.
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


class BodyTooLargeError(Exception):
    """A request has a larger body than is read."""


class GatewayRequest:
    """A request, and the way to answer it: what is sent gets the platform's headers.

    It is an ASGI ``send``, so that a runner's answer can pass through it as it comes.

    Attributes:
        connection: The connection that the request came by.
        method: The HTTP method.
        headers: The headers, names in lower case.
        raw_path: The path as the client sent it, decoded.
        query: The query string.
        place: Which host and which of its paths it is for.
        is_proxied: Whether it came by way of the server proxy.
        is_forwarded: Whether a server proxy with the official allow-list forwards it.
        cdn_base: The URL of the CDN, in the style in which the client came.
        warnings: What the platform lets pass, and a careful client does not do.
        body: The body, once it has been read.
        request_id: What the response will call the request.
        status: The HTTP status of the response, once that has begun.
        websocket: What the connection is to become, or has become if this request came over it;
            ``None`` when it stays with HTTP.
    """

    __slots__ = (
        "_receive",
        "_send",
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
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in raw_headers
        }
        self.raw_path: str = scope["path"]
        self.query: str = scope["query_string"].decode("latin-1")
        scheme = self._forwarded("proto") or scope["scheme"]
        authority = self._forwarded("host") or self.headers.get("host", "")
        self.location = resolve(scheme, authority, self.raw_path)
        self.is_proxied = self.raw_path.rstrip("/") == PROXY_PATH
        self.is_forwarded = False
        if self.is_proxied:
            target = _split(self.headers.get(_TARGET, ""))
            address = target._replace(scheme="", fragment="").geturl().removeprefix("//")
            self.is_forwarded = _PROXY_TARGETS.fullmatch(address) is not None
            self.query = target.query
            self.location = resolve(target.scheme, target.netloc, unquote(target.path))
            # The page uploads by itself, not by way of the proxy, and so not to the real CDN.
            self.cdn_base = f"{scheme}://{authority}/cdn"
        else:
            self.cdn_base = cdn_base(self.location)
        self.warnings: list[str] = []
        self.body = b""
        self.request_id: str | None = None
        self.status: int | None = None
        self.websocket: WebSocket | None = scope.get("websocket")

    def _forwarded(self, what: str) -> str:
        """What the outermost proxy says of the request as the client made it."""
        return self.headers.get(f"x-forwarded-{what}", "").partition(",")[0].strip()

    @property
    def parameters(self) -> dict[str, str]:
        """The query's parameters, the last of each name."""
        return dict(parse_qsl(self.query, keep_blank_values=True)) if self.query else {}

    async def read(self, limit: float) -> bool:
        """Read the body; gives whether all of it came, before the client hung up.

        Args:
            limit: The largest body that is read, in bytes.

        Raises:
            BodyTooLargeError: It is larger. What came of it is forgotten.
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
        """The WebSocket that was asked for, which answers as the platform does."""
        websocket = self.websocket
        if websocket is None:
            raise RuntimeError("nobody asked for a WebSocket")
        if not websocket.headers:
            websocket.headers = self._platform_headers()
        return websocket

    def over_websocket(self, body: bytes, headers: Mapping[str, str], send: Send) -> GatewayRequest:
        """A request that came over the WebSocket which this one was for.

        Args:
            body: Its body.
            headers: Its headers.
            send: Takes its answer, as an ASGI ``send``.
        """
        request = copy.copy(self)
        request.method, request.headers, request.body = "POST", dict(headers), body
        request.request_id = request.status = None
        request.wrap_send(lambda _: send)
        return request

    def wrap_send(self, detour: Callable[[Send], Send]) -> None:
        """Have whatever is sent from now on take a detour."""
        self._send = detour(self._send)

    async def response(self, response: Response) -> None:
        """Answer with this."""
        await response.send(self)

    async def __call__(self, message: Message) -> None:
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
            headers += _cors(origin)
        return headers


def _split(url: str) -> SplitResult:
    """The parts of a URL; of what is none, nothing."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _cors(origin: str) -> RawHeaders:
    """Return the headers that let a page read the response, also with credentials."""
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"Origin"),
    ]
