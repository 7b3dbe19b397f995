"""Connecting a WebSocket: the connection, and the opening handshake on it."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
import httpx
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.protocol import State
from websockets.uri import parse_uri

from fal_async._core.secrets import Secret, conceal
from fal_async._http.parser import ResponseParser
from fal_async._http.response import decode_headers
from fal_async._net.connect import connect, shared_context
from fal_async._net.errors import ExchangeError
from fal_async._net.proxies import ProxyRules, connect_via_proxy, parse_proxy
from fal_async._protocol.response import Response
from fal_async._version import USER_AGENT
from fal_async._websocket.connection import WebSocket
from fal_async.errors import ConnectionFailedError, InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fal_async._net.sockets import SocketStream

__all__ = ["HandshakeRejected", "connect_socket", "connect_websocket"]

#: The default timeout for connecting and the handshake, in seconds: a runner may have to start.
OPEN_TIMEOUT: Final = 90.0
#: The maximum size of the headers of a handshake response, in bytes.
MAX_HEADER_SIZE: Final = 65536
#: The size at which the body of a rejected handshake is truncated, in bytes.
MAX_REJECTION_SIZE: Final = 65536
#: The time to wait for the body of a rejected handshake, in seconds.
REJECTION_TIMEOUT: Final = 5.0

#: Headers of the handshake itself, besides those that start with ``Sec-WebSocket-``.
_HANDSHAKE_HEADERS: Final = frozenset({"host", "upgrade", "connection"})
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# websockets logs the URL, which may contain a token, and the headers, which may contain a key. No
# configuration of logging reaches this logger.
_null_logger = logging.Logger("null", level=logging.CRITICAL + 1)  # noqa: LOG001

#: Connects to the host of a URL; raises `ConnectError` or `ProxyError`.
Connect: TypeAlias = "Callable[[httpx.URL], Awaitable[SocketStream]]"


class HandshakeRejected(Exception):  # noqa: N818 -- a signal within the library, with a response to be read
    """The server responded to the handshake with a status other than 101.

    Attributes:
        response: The HTTP response, its body truncated to `MAX_REJECTION_SIZE`.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


async def connect_socket(url: httpx.URL) -> SocketStream:
    """Connect to the host of a ``ws`` or ``wss`` URL, through the proxy of the environment."""
    tls = await shared_context() if url.scheme == "wss" else None
    host = url.raw_host.decode("ascii")
    port = url.port or (443 if tls else 80)
    proxy = ProxyRules.from_environment().find(url)
    if proxy is None:
        return await connect(host, port, tls=tls)
    return await connect_via_proxy(parse_proxy(proxy), host, port, tls=tls)


async def connect_websocket(
    url: str | Secret,
    headers: Mapping[str, str] | None = None,
    *,
    authorization: Secret | None = None,
    connect: Connect = connect_socket,
    open_timeout: float | None = OPEN_TIMEOUT,
    max_message_size: int | None = None,
    compression: bool = False,
    ping_interval: float | None = 20.0,
    ping_timeout: float | None = 20.0,
) -> WebSocket:
    """Open a WebSocket. The caller closes it.

    Args:
        url: The URL, ``ws://`` or ``wss://``. No error shows it, since it may contain a token.
        headers: Additional headers of the handshake.
        authorization: The value of the ``Authorization`` header.
        connect: Connects to the host of the URL.
        open_timeout: The timeout for connecting and the handshake, in seconds; ``None`` disables
            it.
        max_message_size: The maximum size of a message, in bytes; ``None`` for no limit.
        compression: Whether to offer permessage-deflate, which takes far more time than it saves
            for images.
        ping_interval: As for `WebSocket`.
        ping_timeout: As for `WebSocket`.

    Raises:
        HandshakeRejected: The server responded with a status other than 101.
        ConnectionFailedError: The connection failed, or there was no response in time.
        InvalidResponseError: The response is not a valid handshake response.
        InvalidRequestError: The URL or a header is invalid.
    """
    concealed: Secret = conceal(url)
    try:
        host_url = httpx.URL(concealed.reveal().partition("?")[0])
        protocol = ClientProtocol(
            parse_uri(concealed.reveal()),
            extensions=[ClientPerMessageDeflateFactory()] if compression else None,
            max_size=max_message_size,
            logger=_null_logger,
        )
    except (httpx.InvalidURL, InvalidURI, ValueError):
        # Not chained and not shown: the URL may contain a token.
        raise InvalidRequestError("the URL of a WebSocket must be a ws:// or wss:// URL") from None
    stream: SocketStream | None = None
    try:
        with anyio.move_on_after(open_timeout):
            stream = await connect(host_url)
            early = await _do_handshake(stream, protocol, headers or {}, authorization)
            websocket = WebSocket(
                stream,
                protocol,
                early,
                max_message_size=max_message_size,
                ping_interval=ping_interval,
                ping_timeout=ping_timeout,
            )
            websocket.start()
            return websocket
    except BaseException as error:
        if stream is not None:
            stream.close()
        if isinstance(error, ExchangeError):
            raise ConnectionFailedError(f"cannot open the WebSocket: {error}") from error
        raise
    if stream is not None:
        stream.close()
    raise ConnectionFailedError(
        f"cannot open the WebSocket: no response within {open_timeout:g} seconds"
    )


def _write_request(
    protocol: ClientProtocol, headers: Mapping[str, str], authorization: Secret | None
) -> memoryview:
    # A function of its own, since tracebacks may show local variables: it returns before anything
    # can fail, and a memoryview does not show its content.
    request = protocol.connect()
    additional = {"user-agent": USER_AGENT, **{name.lower(): headers[name] for name in headers}}
    if authorization is not None:
        additional["authorization"] = authorization.reveal()
    request.headers.update(additional)
    protocol.send_request(request)
    return memoryview(b"".join(protocol.data_to_send()))


async def _do_handshake(
    stream: SocketStream,
    protocol: ClientProtocol,
    headers: Mapping[str, str],
    authorization: Secret | None,
) -> bytes:
    """Send the handshake request and read the response.

    Returns:
        The bytes that were received after the response: the first frames.
    """
    for name, value in headers.items():
        lowercase = name.lower()
        if lowercase in _HANDSHAKE_HEADERS or lowercase.startswith("sec-websocket-"):
            raise InvalidRequestError(
                f"cannot set the header {name}: the WebSocket handshake sets it"
            )
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidRequestError(f"the header {name!r} must have a valid name and value")
    try:
        await stream.send(_write_request(protocol, headers, authorization))
        received = await _read_response(stream)
    except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise ConnectionFailedError(
            "cannot open the WebSocket: the connection was closed during the handshake"
        ) from error
    head, separator, early = received.partition(b"\r\n\r\n")
    protocol.receive_data(head + separator)
    protocol.events_received()
    if protocol.state is not State.OPEN:
        reason = protocol.handshake_exc or "the response is incomplete"
        raise InvalidResponseError(f"the WebSocket handshake response is invalid: {reason}")
    return early


async def _read_response(stream: SocketStream) -> bytes:
    """Return the received bytes, which start with a response with status 101."""
    parser = ResponseParser(no_body=False, max_header_bytes=MAX_HEADER_SIZE)
    response = b""
    while not parser.has_head:
        received = await stream.receive()
        response += received
        parser.feed(received)
        if parser.status == 101:
            return response
        if parser.failure is not None:
            raise InvalidResponseError(str(parser.failure))
    body = parser.read_body()
    with anyio.move_on_after(REJECTION_TIMEOUT):
        while not parser.complete and parser.failure is None and len(body) < MAX_REJECTION_SIZE:
            try:
                parser.feed(await stream.receive())
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                break
            body += parser.read_body()
    raise HandshakeRejected(
        Response(
            status_code=parser.status,
            headers=decode_headers(parser.headers),
            body=body[:MAX_REJECTION_SIZE],
        )
    )
