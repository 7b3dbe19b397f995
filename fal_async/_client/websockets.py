"""Calls that open a WebSocket, and tokens for web pages that open one themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fal_async._core.checks import check_callback, check_flag, seconds, whole_number
from fal_async._net.tasks import ConnectionContext
from fal_async._protocol.endpoint import parse_endpoint
from fal_async._protocol.options import merge_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from fal_async._client.connector import ConnectOptions, WebSocketConnector
    from fal_async._client.http_over_websocket import HTTPOverWebSocket
    from fal_async._client.sessions import AsyncRealtimeConnection, WebSocketConnection
    from fal_async._core.secrets import Secret
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._protocol.operation import Operation

__all__ = ["WebSocketMixin"]

#: The default maximum size of a message, in bytes.
MAX_MESSAGE_SIZE: Final = 64 * 1024 * 1024


class WebSocketMixin:
    """The methods of `AsyncClient` that open a WebSocket."""

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
        """Open a session with a realtime app; ``async with`` closes it.

        Args:
            application: The endpoint id, such as ``"fal-ai/fast-lcm-diffusion"``.
            use_jwt: Whether to authenticate with a short-lived token in the URL. If false, the key
                itself is sent in a header.
            path: The path within the app; it is not added to an id that ends with it.
            max_buffering: The number of unprocessed inputs that the platform keeps before it drops
                the oldest, from 1 to 60; ``None`` uses the default of the app.
            token_expiration: The time during which the token can open connections, in seconds.
            encode_message: Encodes the arguments of `send` as text or bytes; ``None`` encodes them
                as msgpack.
            decode_message: Decodes binary messages; ``None`` decodes them as msgpack.
            reconnect: Whether `send` opens a new connection, with a new token, after the last one
                was closed by the server or lost. Inputs without a result are lost; the next `recv`
                then raises a `RealtimeDisconnectedError`.
            max_message_size: The maximum size of a received message, in bytes; ``None`` for no
                limit.
            open_timeout: The timeout for opening a connection, in seconds, which includes the start
                of a runner; ``None`` disables it.
            ping_interval: The time without received data after which to send a ping, in seconds;
                ``None`` disables pings.
            ping_timeout: The time to wait for a response to a ping before the connection counts as
                lost, in seconds; ``None`` disables the timeout.
            compression: Whether to offer permessage-deflate, which takes much time and saves
                nothing on images.
            headers: Additional headers of the handshake.

        Raises:
            FalClientHTTPError: The platform rejected the token or the connection; the subclass
                gives the reason.
            ConnectionFailedError: The connection failed.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.realtime("demo/echo") as connection:
            ...         await connection.send({"prompt": "a cat"})
            ...         result = await connection.recv()
            ...     print(result["prompt"])
            >>> anyio.run(main)
            a cat
        """
        # Late, like the imports of the methods below: most programs open no WebSockets.
        from fal_async._client.sessions import AsyncRealtimeConnection, ReconnectingWebSocket
        from fal_async._protocol.realtime import create_token, realtime_url

        hosts, endpoint = self._dispatcher.hosts, parse_endpoint(application)
        connector = self._connector(
            ("realtime", str(endpoint)),
            realtime_url(hosts, endpoint, path=path, max_buffering=max_buffering),
            create_token(hosts, endpoint, token_expiration=token_expiration)
            if check_flag("use_jwt", use_jwt)
            else None,
            headers=headers,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_message_size=max_message_size,
            compression=compression,
        )
        check_callback("encode_message", encode_message)
        check_callback("decode_message", decode_message)
        check_flag("reconnect", reconnect)

        async def connect() -> AsyncRealtimeConnection:
            websocket = ReconnectingWebSocket(
                await connector.connect(), connector.connect if reconnect else None
            )
            return AsyncRealtimeConnection(websocket, encode_message, decode_message)

        return ConnectionContext(connect)

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
        """Open a WebSocket of an app with its own protocol; ``async with`` closes it.

        Args:
            application: The endpoint id.
            path: The path within the app, which is added to the id.
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
            FalClientHTTPError: The platform rejected the token or the connection.
            ConnectionFailedError: The connection failed.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.ws_connect("demo/socket", path="/chat") as socket:
            ...         await socket.send("hello")
            ...         print(await socket.recv())
            >>> anyio.run(main)
            hello
        """
        from fal_async._client.sessions import WebSocketConnection  # late, as in `realtime`
        from fal_async._protocol.realtime import create_token, runner_url

        hosts, endpoint = self._dispatcher.hosts, parse_endpoint(application)
        connector = self._connector(
            ("ws_connect", str(endpoint)),
            runner_url(hosts, endpoint, path=path, max_buffering=max_buffering),
            create_token(hosts, endpoint, token_expiration=token_expiration)
            if check_flag("use_jwt", use_jwt)
            else None,
            headers=headers,
            open_timeout=open_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_message_size=max_message_size,
            compression=compression,
        )

        async def connect() -> WebSocketConnection:
            return WebSocketConnection(await connector.connect())

        return ConnectionContext(connect)

    def http_over_websocket(
        self,
        application: str,
        *,
        max_message_size: int | None = MAX_MESSAGE_SIZE,
        open_timeout: float | None = 90.0,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractAsyncContextManager[HTTPOverWebSocket]:
        """Open a WebSocket for many HTTP requests to an endpoint; ``async with`` closes it.

        Args:
            application: The endpoint id, with its path.
            max_message_size: The maximum size of a received message, in bytes; ``None`` for no
                limit. A response consists of one or more messages.
            open_timeout: The timeout for opening the connection, in seconds; ``None`` disables it.
            headers: Additional headers of the handshake.

        Raises:
            FalClientHTTPError: The platform rejected the connection.
            ConnectionFailedError: The connection failed.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     async with fal_async.http_over_websocket("demo/echo") as requests:
            ...         response = await requests.request({"prompt": "a cat"})
            ...         print(response.result["prompt"])
            >>> anyio.run(main)
            a cat
        """
        # Late, as in `realtime`.
        from fal_async._client.http_over_websocket import HTTPOverWebSocket
        from fal_async._protocol.http_over_websocket import endpoint_url

        endpoint = parse_endpoint(application)
        connector = self._connector(
            ("http_over_websocket", str(endpoint)),
            endpoint_url(self._dispatcher.hosts, endpoint),
            None,
            headers=headers,
            open_timeout=open_timeout,
            max_message_size=max_message_size,
        )

        async def connect() -> HTTPOverWebSocket:
            return HTTPOverWebSocket(await connector.connect())

        return ConnectionContext(connect)

    async def realtime_token(
        self, application: str, *, expires_in: int = 120, path: str = "/realtime"
    ) -> str:
        """Create a token with which a web page opens sessions with an app, without the key.

        It is the value that a ``tokenProvider`` of the official JavaScript client returns. Whoever
        has it can run the app at the expense of the account until it expires.

        Args:
            application: The endpoint id, such as ``"fal-ai/fast-lcm-diffusion"``.
            expires_in: The time during which the token can open connections, in seconds.
            path: The path within the app that the token is for, such as ``"/stream"`` for streams;
                it is not added to an id that ends with it.

        Raises:
            FalClientHTTPError: The platform refused to create a token.
            ConnectionFailedError: The platform is unreachable.
            InvalidRequestError: An argument is invalid; nothing was sent.

        Example:
            >>> async def main() -> None:
            ...     token = await fal_async.realtime_token("demo/echo", expires_in=60)
            ...     print(len(token) > 20)
            >>> anyio.run(main)
            True
        """
        from fal_async._protocol.realtime import create_path_token  # late, as in `realtime`

        operation = create_path_token(
            self._dispatcher.hosts, parse_endpoint(application), expires_in=expires_in, path=path
        )
        return (await self._dispatcher.execute(operation)).reveal()

    def _connector(
        self,
        call: tuple[str, str],
        url: str,
        token_operation: Operation[Secret] | None,
        *,
        headers: Mapping[str, str] | None,
        open_timeout: float | None,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        max_message_size: int | None = MAX_MESSAGE_SIZE,
        compression: bool = False,
    ) -> WebSocketConnector:
        """Validate the arguments of a call, and return a connector with them."""
        from fal_async._client.connector import WebSocketConnector  # late, as in `realtime`

        if max_message_size is not None:
            whole_number("max_message_size", max_message_size)
        options: ConnectOptions = {
            "headers": {
                "user-agent": self._dispatcher.user_agent,
                **self._dispatcher.headers,
                **merge_headers(headers),
            },
            "open_timeout": seconds("open_timeout", open_timeout),
            "ping_interval": seconds("ping_interval", ping_interval),
            "ping_timeout": seconds("ping_timeout", ping_timeout),
            "max_message_size": max_message_size,
            "compression": check_flag("compression", compression),
        }
        return WebSocketConnector(self._dispatcher, call, url, token_operation, options)
