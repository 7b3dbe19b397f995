"""Connecting and the opening handshake."""

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
from fal_async._http.transports import parse_proxy
from fal_async._net.connect import connect, connect_via_proxy, shared_context
from fal_async._net.errors import ExchangeError
from fal_async._net.proxies import ProxyRules
from fal_async._protocol.response import Response
from fal_async._version import USER_AGENT
from fal_async._websocket.connection import WebSocket
from fal_async.errors import ConnectionFailedError, InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fal_async._net.sockets import SocketStream

__all__ = [
    "OPEN_TIMEOUT",
    "Dial",
    "HandshakeRejected",
    "connect_url",
    "connect_websocket",
    "create_protocol",
    "do_handshake",
]


#: How much of the body of a refusal is read, in bytes, and for how long, in seconds.
MAX_REFUSAL: Final = 65536


REJECTION_TIMEOUT: Final = 5.0


#: The longest head of a response to the handshake, in bytes.
MAX_HEAD: Final = 65536


_OF_THE_HANDSHAKE: Final = frozenset({"host", "upgrade", "connection"})


_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


# The URL holds a token and the headers a key, and websockets logs both: so it gets a logger that
# no configuration reaches.
_null_logger = logging.Logger("silence", level=logging.CRITICAL + 1)  # noqa: LOG001


class HandshakeRejected(Exception):  # noqa: N818 -- a signal within the library, with a reply to be read
    """The server answered the handshake as if it were any other request.

    Attributes:
        response: Its answer, the body cut off at `MAX_REFUSAL`.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def create_protocol(
    url: Secret, *, max_message_size: int | None = None, compression: bool = False
) -> ClientProtocol:
    """The state machine of a connection that is about to be opened.

    Args:
        url: Where to, ``ws://`` or ``wss://``.
        max_message_size: The longest message to accept, in bytes; ``None`` for any.
        compression: Whether to offer permessage-deflate.
    """
    try:
        uri = parse_uri(url.reveal())
    except (InvalidURI, ValueError):
        # Not chained, and not shown: the URL may hold a token.
        raise InvalidRequestError("the address of the WebSocket is not a ws:// URL") from None
    return ClientProtocol(
        uri,
        extensions=[ClientPerMessageDeflateFactory()] if compression else None,
        max_size=max_message_size,
        logger=_null_logger,
    )


async def do_handshake(
    stream: SocketStream,
    protocol: ClientProtocol,
    headers: Mapping[str, str],
    authorization: Secret | None = None,
) -> bytes:
    """Open the WebSocket.

    Args:
        stream: The connection.
        protocol: Its state machine.
        headers: What to send along.
        authorization: The value of the Authorization header.

    Returns:
        What came along with the answer: the beginning of the frames.

    Raises:
        HandshakeRefused: The server said something other than 101.
        ConnectionFailedError: The connection broke.
        InvalidResponseError: The answer is not one to a handshake.
        InvalidRequestError: A header cannot be sent.
    """
    _check_headers(headers)
    try:
        await stream.send(_write_request(protocol, headers, authorization))
        answer = await _read_response(stream)
    except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise ConnectionFailedError("the connection broke during the handshake") from error
    head, mark, rest = answer.partition(b"\r\n\r\n")
    protocol.receive_data(head + mark)
    protocol.events_received()
    if protocol.state is not State.OPEN:
        reason = protocol.handshake_exc or "its end is missing"
        raise InvalidResponseError(f"the answer to the WebSocket handshake is wrong: {reason}")
    return rest


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        lowered = name.lower()
        if lowered in _OF_THE_HANDSHAKE or lowered.startswith("sec-websocket-"):
            raise InvalidRequestError(f"the header {name} belongs to the handshake")
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise InvalidRequestError(f"the header {name!r} cannot be sent")


def _write_request(
    protocol: ClientProtocol, headers: Mapping[str, str], authorization: Secret | None
) -> memoryview:
    """The request, checked before; websockets' own object would show what is in it."""
    request = protocol.connect()
    own = {} if authorization is None else {"authorization": authorization.reveal()}
    given = {name.lower(): value for name, value in headers.items()}
    request.headers.update({"user-agent": USER_AGENT, **given, **own})
    protocol.send_request(request)
    return memoryview(b"".join(protocol.data_to_send()))


async def _read_response(stream: SocketStream) -> bytes:
    """What has arrived, of which the answer to the handshake is the first part."""
    parser = ResponseParser(no_body=False, max_header_bytes=MAX_HEAD)
    answer = b""
    while not parser.has_head:
        received = await stream.receive()
        answer += received
        parser.feed(received)
        if parser.status == 101:
            return answer
        if parser.failure is not None:
            raise InvalidResponseError(str(parser.failure))
    raise HandshakeRejected(await _read_rejection(stream, parser))


async def _read_rejection(stream: SocketStream, parser: ResponseParser) -> Response:
    body = parser.read_body()
    with anyio.move_on_after(REJECTION_TIMEOUT):
        while not parser.complete and parser.failure is None and len(body) < MAX_REFUSAL:
            try:
                parser.feed(await stream.receive())
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                break
            body += parser.read_body()
    return Response(
        status_code=parser.status,
        headers=decode_headers(parser.headers),
        body=body[:MAX_REFUSAL],
    )


#: How long opening may take, in seconds: a runner may have to start first.
OPEN_TIMEOUT: Final = 90.0


#: Opens the connection that a URL needs; raises `ConnectError` or `ProxyError`.
Dial: TypeAlias = "Callable[[httpx.URL], Awaitable[SocketStream]]"


async def connect_url(url: httpx.URL) -> SocketStream:
    """Open a connection for a ``ws`` or ``wss`` URL, by the proxy that the environment names."""
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
    dial: Dial = connect_url,
    open_timeout: float | None = OPEN_TIMEOUT,
    max_message_size: int | None = None,
    compression: bool = False,
    ping_interval: float | None = 20.0,
    ping_timeout: float | None = 20.0,
) -> WebSocket:
    """Open a WebSocket, which the caller closes.

    Args:
        url: Where to, ``ws://`` or ``wss://``; it is never shown, since it may hold a token.
        headers: What to send along with the handshake.
        authorization: The value of the Authorization header.
        dial: Opens the connection.
        open_timeout: How long all of it may take, in seconds; ``None`` disables the bound.
        max_message_size: The longest message to accept, in bytes; ``None`` for any.
        compression: Whether to offer permessage-deflate, which costs far more time than it saves
            for images.
        ping_interval: As for `WebSocket`.
        ping_timeout: As for `WebSocket`.

    Raises:
        HandshakeRefused: The server answered with an HTTP response.
        ConnectionFailedError: There was no connection, or no answer in time.
        InvalidResponseError: The answer is not one to a handshake.
        InvalidRequestError: The URL or a header cannot be used.
    """
    address: Secret = conceal(url)
    protocol = create_protocol(address, max_message_size=max_message_size, compression=compression)
    stream: SocketStream | None = None
    try:
        with anyio.move_on_after(open_timeout):
            stream = await dial(_parse(address))
            early = await do_handshake(stream, protocol, headers or {}, authorization)
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
            raise ConnectionFailedError(f"the WebSocket cannot be opened: {error}") from error
        raise
    if stream is not None:
        stream.close()
    raise ConnectionFailedError(f"the WebSocket could not be opened within {open_timeout} seconds")


def _parse(url: Secret) -> httpx.URL:
    """Where to connect to: the URL without its query."""
    try:
        return httpx.URL(url.reveal().partition("?")[0])
    except httpx.InvalidURL:
        raise InvalidRequestError("the address of the WebSocket is not a URL") from None
