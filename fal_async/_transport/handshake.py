"""The opening handshake of a WebSocket, and the reply of a server that refuses it."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

import anyio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.protocol import State
from websockets.uri import parse_uri

from fal_async._protocol.replies import Reply
from fal_async._transport.carriers import headers_of
from fal_async._transport.exchange import USER_AGENT
from fal_async._transport.parsing import ReplyParser
from fal_async.errors import ConnectionFailedError, InvalidReplyError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fal_async._secret import Secret
    from fal_async._transport.sockets import SocketStream

__all__ = ["HandshakeRefused", "make_protocol", "shake_hands"]

#: How much of the body of a refusal is read, in bytes, and for how long, in seconds.
MAX_REFUSAL: Final = 65536
REFUSAL_TIME: Final = 5.0
#: The longest head of a reply to the handshake, in bytes.
MAX_HEAD: Final = 65536

_OF_THE_HANDSHAKE: Final = frozenset({"host", "upgrade", "connection"})
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# The URL holds a token and the headers a key, and websockets logs both: so it gets a logger that
# no configuration reaches.
_silence = logging.Logger("silence", level=logging.CRITICAL + 1)  # noqa: LOG001


class HandshakeRefused(Exception):  # noqa: N818 -- a signal within the library, with a reply to be read
    """The server answered the handshake as if it were any other request.

    Attributes:
        reply: Its answer, the body cut off at `MAX_REFUSAL`.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status_code)
        self.reply = reply


def make_protocol(
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
        logger=_silence,
    )


async def shake_hands(
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
        InvalidReplyError: The answer is not one to a handshake.
        InvalidRequestError: A header cannot be sent.
    """
    _check_headers(headers)
    try:
        await stream.send(_write_request(protocol, headers, authorization))
        answer = await _read_answer(stream)
    except (anyio.BrokenResourceError, anyio.EndOfStream) as error:
        raise ConnectionFailedError("the connection broke during the handshake") from error
    head, mark, rest = answer.partition(b"\r\n\r\n")
    protocol.receive_data(head + mark)
    protocol.events_received()
    if protocol.state is not State.OPEN:
        reason = protocol.handshake_exc or "its end is missing"
        raise InvalidReplyError(f"the answer to the WebSocket handshake is wrong: {reason}")
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


async def _read_answer(stream: SocketStream) -> bytes:
    """What has arrived, of which the answer to the handshake is the first part."""
    parser = ReplyParser(bodiless=False, max_header_bytes=MAX_HEAD)
    answer = b""
    while not parser.has_head:
        received = await stream.receive()
        answer += received
        parser.feed(received)
        if parser.status == 101:
            return answer
        if parser.failure is not None:
            raise InvalidReplyError(str(parser.failure))
    raise HandshakeRefused(await _read_refusal(stream, parser))


async def _read_refusal(stream: SocketStream, parser: ReplyParser) -> Reply:
    body = parser.take()
    with anyio.move_on_after(REFUSAL_TIME):
        while not parser.complete and parser.failure is None and len(body) < MAX_REFUSAL:
            try:
                parser.feed(await stream.receive())
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                break
            body += parser.take()
    return Reply(
        status_code=parser.status,
        headers=headers_of(parser.headers),
        body=body[:MAX_REFUSAL],
    )
