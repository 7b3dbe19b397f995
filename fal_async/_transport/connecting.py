"""Opening WebSockets: by the environment's proxies, TLS, the handshake, all within one deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
import httpx

from fal_async._secret import Secret, conceal
from fal_async._transport.dialing import dial, dial_through
from fal_async._transport.errors import ExchangeError
from fal_async._transport.handshake import make_protocol, shake_hands
from fal_async._transport.proxies import ProxyRules, parse_proxy
from fal_async._transport.tls import shared_context
from fal_async._transport.websocket import WebSocket
from fal_async.errors import ConnectionFailedError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fal_async._transport.sockets import SocketStream

__all__ = ["OPEN_TIMEOUT", "Dial", "connect_websocket", "dial_url"]

#: How long opening may take, in seconds: a runner may have to start first.
OPEN_TIMEOUT: Final = 90.0

#: Opens the connection that a URL needs; raises `ConnectError` or `ProxyError`.
Dial: TypeAlias = "Callable[[httpx.URL], Awaitable[SocketStream]]"


async def dial_url(url: httpx.URL) -> SocketStream:
    """Open a connection for a ``ws`` or ``wss`` URL, by the proxy that the environment names."""
    tls = await shared_context() if url.scheme == "wss" else None
    host = url.raw_host.decode("ascii")
    port = url.port or (443 if tls else 80)
    proxy = ProxyRules.from_environment().find(url)
    if proxy is None:
        return await dial(host, port, tls=tls)
    return await dial_through(parse_proxy(proxy), host, port, tls=tls)


async def connect_websocket(
    url: str | Secret,
    headers: Mapping[str, str] | None = None,
    *,
    authorization: Secret | None = None,
    dial: Dial = dial_url,
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
        HandshakeRefused: The server answered with an HTTP reply.
        ConnectionFailedError: There was no connection, or no answer in time.
        InvalidReplyError: The answer is not one to a handshake.
        InvalidRequestError: The URL or a header cannot be used.
    """
    address: Secret = conceal(url)
    protocol = make_protocol(address, max_message_size=max_message_size, compression=compression)
    stream: SocketStream | None = None
    try:
        with anyio.move_on_after(open_timeout):
            stream = await dial(_parse(address))
            early = await shake_hands(stream, protocol, headers or {}, authorization)
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
