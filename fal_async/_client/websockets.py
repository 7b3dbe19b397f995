"""Calls that open a WebSocket: realtime sessions, sockets of apps, requests over a socket."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict

from fal_async._client.http_over_websocket import HTTPOverWebSocket, connect
from fal_async._client.sessions import (
    AsyncRealtimeConnection,
    WebSocketConnection,
    open_realtime,
    open_websocket,
)
from fal_async._core.checks import check_callback, check_flag, seconds, whole_number
from fal_async._net.threads import run_in_thread
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.error_mapping import exception_from_response
from fal_async._protocol.http_over_websocket import endpoint_url
from fal_async._protocol.options import merge_headers
from fal_async._protocol.realtime import create_token, realtime_url, runner_url, with_token
from fal_async.errors import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from fal_async._core.secrets import Secret
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._protocol.operation import Operation
    from fal_async._websocket.connection import WebSocket

__all__ = ["WebSocketMixin"]

#: The longest message that is accepted unless the caller says otherwise, in bytes.
MAX_MESSAGE_SIZE: Final = 64 * 1024 * 1024
#: What opens WebSockets; loaded by a worker thread, since it would hold up the event loop.
CONNECTING: Final = "fal_async._websocket.handshake"


class WebSocketMixin:
    """The calls that hold a WebSocket for their whole life."""

    _dispatcher: Dispatcher

    def realtime(
        self,
        application: str,
        *,
        use_jwt: bool = True,
        path: str = "/realtime",
        max_buffering: int | None = None,
        token_expiration: int = 120,
        encode_message: Callable[[Any], str | bytes] | None = None,
        decode_message: Callable[[bytes], Any] | None = None,
        reconnect: bool = False,
        max_message_size: int | None = MAX_MESSAGE_SIZE,
        open_timeout: float | None = 90.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        compression: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[AsyncRealtimeConnection]:
        """Open a session with a realtime app, for the length of the block.

        Args:
            application: The endpoint id, such as ``"fal-ai/fast-lcm-diffusion"``.
            use_jwt: Whether a short-lived token opens the session, or else the key itself, in a
                header.
            path: The path within the app; it is not added to an id that ends with it.
            max_buffering: How many unprocessed inputs the platform keeps before it drops the
                oldest, from 1 to 60; ``None`` leaves it to the app.
            token_expiration: For how long the token may be used to connect, in seconds.
            encode_message: Makes a message of what is sent, text or bytes; ``None`` writes msgpack.
            decode_message: Reads messages that are bytes; ``None`` reads msgpack.
            reconnect: Whether the first `send` after the connection was closed by the other side,
                or lost, opens a new one, with a new token. What had not been answered is lost, of
                which the next `recv` tells by a `RealtimeDisconnectedError`.
            max_message_size: The longest message to accept, in bytes; ``None`` for any.
            open_timeout: How long opening a connection may take, in seconds, since a runner may
                have to start; ``None`` for any time.
            ping_interval: After so many seconds of silence the other side is asked for a sign of
                life; ``None`` never asks.
            ping_timeout: After so many seconds without one the connection is held to be lost;
                ``None`` never does.
            compression: Whether to offer permessage-deflate, which costs much time and saves
                nothing on images.
            headers: Further headers of the handshake.

        Raises:
            FalClientHTTPError: The platform refused the token or the connection; the class says
                why.
            ConnectionFailedError: There was no connection.
            InvalidRequestError: An argument is wrong; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.realtime("demo/echo") as connection:
            ...         await connection.send({"prompt": "a cat"})
            ...         result = await connection.recv()
            ...     print(result["prompt"])
            >>> anyio.run(main)
            a cat
        """
        hosts, endpoint = self._dispatcher.hosts, parse_endpoint(application)
        open_socket = _SocketConnector(
            self._dispatcher,
            realtime_url(hosts, endpoint, path=path, max_buffering=max_buffering),
            create_token(hosts, endpoint, token_expiration=token_expiration)
            if check_flag("use_jwt", use_jwt)
            else None,
            _options(
                headers=headers,
                open_timeout=open_timeout,
                ping_interval=ping_interval,
                ping_timeout=ping_timeout,
                max_message_size=max_message_size,
                compression=compression,
            ),
        )
        check_callback("encode_message", encode_message)
        check_callback("decode_message", decode_message)
        check_flag("reconnect", reconnect)
        return open_realtime(
            open_socket, encode=encode_message, decode=decode_message, reconnect=reconnect
        )

    def ws_connect(
        self,
        application: str,
        *,
        path: str = "",
        use_jwt: bool = True,
        max_buffering: int | None = None,
        token_expiration: int = 120,
        max_message_size: int | None = MAX_MESSAGE_SIZE,
        open_timeout: float | None = 90.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        compression: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[WebSocketConnection]:
        """Open a WebSocket of an app with a protocol of its own, for the length of the block.

        Args:
            application: The endpoint id.
            path: The path within the app, added to the id.
            use_jwt: As for `realtime`.
            max_buffering: As for `realtime`.
            token_expiration: As for `realtime`.
            max_message_size: As for `realtime`.
            open_timeout: As for `realtime`.
            ping_interval: As for `realtime`.
            ping_timeout: As for `realtime`.
            compression: As for `realtime`.
            headers: As for `realtime`.

        Raises:
            FalClientHTTPError: The platform refused the token or the connection.
            ConnectionFailedError: There was no connection.
            InvalidRequestError: An argument is wrong; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.ws_connect("demo/socket", path="/chat") as socket:
            ...         await socket.send("hello")
            ...         print(await socket.recv())
            >>> anyio.run(main)
            hello
        """
        hosts, endpoint = self._dispatcher.hosts, parse_endpoint(application)
        open_socket = _SocketConnector(
            self._dispatcher,
            runner_url(hosts, endpoint, path=path, max_buffering=max_buffering),
            create_token(hosts, endpoint, token_expiration=token_expiration)
            if check_flag("use_jwt", use_jwt)
            else None,
            _options(
                headers=headers,
                open_timeout=open_timeout,
                ping_interval=ping_interval,
                ping_timeout=ping_timeout,
                max_message_size=max_message_size,
                compression=compression,
            ),
        )
        return open_websocket(open_socket)

    def http_over_websocket(
        self,
        application: str,
        *,
        max_message_size: int | None = MAX_MESSAGE_SIZE,
        open_timeout: float | None = 90.0,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[HTTPOverWebSocket]:
        """Open one connection for many HTTP requests to an endpoint, for the length of the block.

        Args:
            application: The endpoint id, with its path.
            max_message_size: The longest message to accept, in bytes; ``None`` for any. A response
                has one or several.
            open_timeout: How long opening the connection may take, in seconds; ``None`` for any
                time.
            headers: Further headers of the handshake.

        Raises:
            FalClientHTTPError: The platform refused the connection.
            ConnectionFailedError: There was no connection.
            InvalidRequestError: An argument is wrong; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.http_over_websocket("demo/echo") as requests:
            ...         response = await requests.request({"prompt": "a cat"})
            ...         print(response.result["prompt"])
            >>> anyio.run(main)
            a cat
        """
        open_socket = _SocketConnector(
            self._dispatcher,
            endpoint_url(self._dispatcher.hosts, parse_endpoint(application)),
            None,
            _options(headers=headers, open_timeout=open_timeout, max_message_size=max_message_size),
        )
        return connect(open_socket)


def _options(
    *,
    headers: Mapping[str, str] | None,
    open_timeout: float | None,
    ping_interval: float | None = 20.0,
    ping_timeout: float | None = 20.0,
    max_message_size: int | None = MAX_MESSAGE_SIZE,
    compression: bool = False,
) -> _Options:
    """The arguments, checked."""
    if max_message_size is not None:
        whole_number("max_message_size", max_message_size)
    return {
        "headers": merge_headers(headers),
        "open_timeout": seconds("open_timeout", open_timeout),
        "ping_interval": seconds("ping_interval", ping_interval),
        "ping_timeout": seconds("ping_timeout", ping_timeout),
        "max_message_size": max_message_size,
        "compression": check_flag("compression", compression),
    }


class _Options(TypedDict):
    """What `connect_websocket` takes."""

    headers: Mapping[str, str]
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    max_message_size: int | None
    compression: bool


@dataclass(frozen=True, slots=True)
class _SocketConnector:
    """Opens connections to one place, each with a credential of its own."""

    dispatcher: Dispatcher
    url: str
    token_request: Operation[Secret] | None
    options: _Options

    async def __call__(self) -> WebSocket:
        return await self.dispatcher.resources.websockets.open(self._open)

    async def _open(self) -> WebSocket:
        if self.token_request is not None:
            token = await self.dispatcher.execute(self.token_request)
            return await self._connect(with_token(self.url, token), None)
        authority = self.dispatcher.credentials
        authorization = await authority.authorization()
        try:
            return await self._connect(self.url, authorization)
        except AuthenticationError:
            if not authority.refreshable:
                raise
        authority.invalidate(authorization)
        return await self._connect(self.url, await authority.authorization())

    async def _connect(self, url: str | Secret, authorization: Secret | None) -> WebSocket:
        if CONNECTING not in sys.modules:
            await run_in_thread(partial(importlib.import_module, CONNECTING))
        # Late: httpx and websockets are slow to import, and only WebSockets need both.
        from fal_async._websocket.handshake import HandshakeRejected, connect_websocket

        try:
            return await connect_websocket(url, authorization=authorization, **self.options)
        except HandshakeRejected as refusal:
            raise exception_from_response(refusal.response) from None
