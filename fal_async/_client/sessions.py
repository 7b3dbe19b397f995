"""Sockets of apps: realtime sessions, and connections with an app's own protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Never, Self, cast

import anyio
from anyio.lowlevel import checkpoint

from fal_async._client.unclaimed import unclaimed
from fal_async._protocol.realtime import (
    DataMessage,
    ErrorMessage,
    MetaMessage,
    SessionTimeout,
    Unauthorized,
    decode_message,
)
from fal_async._protocol.serialization import encode_msgpack
from fal_async._websocket.opening import Opening
from fal_async.errors import (
    AuthenticationError,
    FalClientError,
    InvalidResponseError,
    RealtimeDisconnectedError,
    RealtimeError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async._websocket.connection import WebSocket

__all__ = ["AsyncRealtimeConnection", "WebSocketConnection", "open_realtime", "open_websocket"]

#: Close codes of an orderly end: normal, going away, none given.
NORMAL_CLOSE_CODES: Final = frozenset({1000, 1001, 1005})


class _Receiver:
    """Receives again what it gave to a caller who had left."""

    def __init__(self) -> None:
        self._unclaimed: list[Any] = []

    async def _keep(self, received: object) -> None:
        self._unclaimed.append(received)

    def _claim(self) -> Any:
        """Return or raise what was kept."""
        kept = self._unclaimed.pop(0)
        if isinstance(kept, FalClientError):
            raise kept
        return kept


_keeping = unclaimed(_Receiver._keep, is_kept=True)  # pyright: ignore[reportPrivateUsage] -- of the class above


class WebSocketConnection(_Receiver):
    """A WebSocket of an app that speaks a protocol of its own: text and bytes, both ways.

    Several tasks may send; one at a time may receive. ``async for`` gives the messages until the
    other side closes in good order.

    Example:
        >>> async def main() -> None:
        ...     async with fal_async.ws_connect("demo/socket") as socket:
        ...         await socket.send("hello")
        ...         print(await socket.recv())
        >>> anyio.run(main)
        hello
    """

    def __init__(self, socket: WebSocket) -> None:
        super().__init__()
        self._socket = socket

    def __del__(self) -> None:
        self._socket.abandon()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(close_code={self.close_code!r})"

    @property
    def close_code(self) -> int | None:
        """The code of the close, 1006 for a connection that was lost; ``None`` while open."""
        return self._socket.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason that was given for the close, perhaps empty; ``None`` while open."""
        return self._socket.close_reason

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send text or bytes. What has been sent goes out whole, even if the task is cancelled.

        Raises:
            RealtimeDisconnectedError: The connection is closed.
            InvalidRequestError: The message is neither text nor bytes.
        """
        await self._socket.send(message)

    @_keeping
    async def recv(self) -> str | bytes:
        """Receive the next message.

        Raises:
            RealtimeDisconnectedError: The connection is closed, and all that came before the close
                has been received.
            InvalidResponseError: The other side broke the protocol, or sent too long a message.
            InvalidRequestError: Another task is receiving.
        """
        if self._unclaimed:
            await checkpoint()
            return cast("str | bytes", self._claim())
        message = await self._socket.recv()
        return message if isinstance(message, str) else bytes(message)

    def __aiter__(self) -> Self:
        return self

    @_keeping
    async def __anext__(self) -> str | bytes:
        try:
            return await self.recv()
        except RealtimeDisconnectedError as error:
            raise _stop_or_raise(error) from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection and wait, not for long, until the other side has agreed.

        Args:
            code: What the other side is told: 1000 for a normal end, or one of 3000 to 4999.
            reason: What else it is told, up to 123 bytes.
        """
        await self._socket.close(code, reason)


class AsyncRealtimeConnection(_Receiver):
    """A session with a realtime app: arguments go in, results come out.

    Several tasks may send; one at a time may receive. ``async for`` gives the results until the
    session ends, be it by a close in good order or because it was idle for too long.

    Example:
        >>> async def main() -> None:
        ...     async with fal_async.realtime("demo/echo") as connection:
        ...         await connection.send({"prompt": "a cat"})
        ...         result = await connection.recv()
        ...     print(result["prompt"])
        >>> anyio.run(main)
        a cat
    """

    def __init__(
        self,
        line: ReconnectingConnection,
        encode: Callable[[Any], str | bytes] | None,
        decode: Callable[[bytes], Any] | None,
    ) -> None:
        super().__init__()
        self._connection = line
        self._encode = encode or encode_msgpack
        self._decode = decode

    def __repr__(self) -> str:
        return f"{type(self).__name__}(close_code={self.close_code!r})"

    @property
    def close_code(self) -> int | None:
        """The code of the close, 1006 for a connection that was lost; ``None`` while open."""
        return self._connection.socket.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason that was given for the close, perhaps empty; ``None`` while open."""
        return self._connection.socket.close_reason

    async def send(self, arguments: object) -> None:
        """Send one input; with ``reconnect=True`` over a new connection, if the last was lost.

        Args:
            arguments: A mapping or a pydantic model, in which bytes stay bytes; or whatever
                `encode_message` takes.

        Raises:
            RealtimeDisconnectedError: The connection is closed, and is not to be opened again.
            InvalidRequestError: The arguments cannot be sent.
            FalClientHTTPError: The platform refused the new connection.
            ConnectionFailedError: There was no new connection.
        """
        await self._connection.send(self._encode(arguments))

    @_keeping
    async def recv(self) -> Any:
        """Receive the next result, whose bytes are bytes; ``None`` is a result like any other.

        Raises:
            RealtimeError: The app failed; or, with the error ``"TIMEOUT"``, the session has ended.
            RealtimeDisconnectedError: The connection is closed, and all that came before the close
                has been received. What was sent and not answered is lost.
            AuthenticationError: The token was refused, or has expired.
            InvalidResponseError: The message cannot be read.
            InvalidRequestError: Another task is receiving.
        """
        if self._unclaimed:
            await checkpoint()
            return self._claim()
        while True:
            message = decode_message(await self._connection.recv(), self._decode)
            if isinstance(message, DataMessage):
                return message.value
            if not isinstance(message, MetaMessage):
                self._connection.end()
                _raise(message)

    def __aiter__(self) -> Self:
        return self

    @_keeping
    async def __anext__(self) -> Any:
        try:
            return await self.recv()
        except RealtimeDisconnectedError as error:
            raise _stop_or_raise(error) from None
        except RealtimeError as error:
            if error.error == "TIMEOUT":
                raise StopAsyncIteration from None
            raise

    async def close(self) -> None:
        """End the session and wait, not for long, until the other side has agreed."""
        await self._connection.close()


def _raise(message: ErrorMessage | SessionTimeout | Unauthorized) -> Never:
    match message:
        case ErrorMessage():
            raise RealtimeError(message.error, message.reason, message.payload)
        case SessionTimeout():
            raise RealtimeError("TIMEOUT", message.reason, message.payload)
        case Unauthorized():
            raise AuthenticationError(
                "the token of the session was refused, or has expired", 401, body=message.payload
            )


def _stop_or_raise(error: RealtimeDisconnectedError) -> Exception:
    return StopAsyncIteration() if error.close_code in NORMAL_CLOSE_CODES else error


class ReconnectingConnection:
    """One connection after the other, each opened by the first `send` after the last was lost.

    Args:
        socket: The first connection.
        reopen: Opens another; ``None`` if there is to be one only.

    Attributes:
        socket: The connection that is sent on.
    """

    def __init__(
        self, socket: WebSocket, reopen: Callable[[], Awaitable[WebSocket]] | None
    ) -> None:
        self.socket: WebSocket = socket
        self._reopen = reopen
        self._reopening = anyio.Lock()
        self._received_from = socket
        self._draining: WebSocket | None = (
            None  # has something that was not received, if only its end
        )
        self._ended: WebSocket | None = None  # the end of this one was received
        self._closed = False

    def __del__(self) -> None:
        self.socket.abandon()

    async def send(self, message: str | bytes) -> None:
        try:
            return await self.socket.send(message)
        except (RealtimeDisconnectedError, InvalidResponseError):
            # Nothing of the message was sent.
            if self._reopen is None or self._closed:
                raise
        await self._reconnect(self._reopen)
        return await self.socket.send(message)

    async def _reconnect(self, reopen: Callable[[], Awaitable[WebSocket]]) -> None:
        async with self._reopening:
            old = self.socket
            if old.is_open:
                return
            self.socket = await reopen()
            if self._draining is None and self._ended is not old:
                self._draining = old
            old.drop()
            if self._closed:
                self.socket.drop()

    async def recv(self) -> str | bytes | bytearray:
        socket = self._received_from = self._draining or self.socket
        try:
            return await socket.recv()
        except (RealtimeDisconnectedError, InvalidResponseError):
            self._mark_ended(socket)
            raise

    def _mark_ended(self, socket: WebSocket) -> None:
        self._ended = socket
        if socket is self._draining:
            self._draining = None

    def end(self) -> None:
        """The last message was the last of its connection."""
        self._mark_ended(self._received_from)
        if self._reopen is not None:
            self._received_from.drop()

    async def close(self) -> None:
        self._closed = True
        await self.socket.close()


def open_realtime(
    open_socket: Callable[[], Awaitable[WebSocket]],
    *,
    encode: Callable[[Any], str | bytes] | None = None,
    decode: Callable[[bytes], Any] | None = None,
    reconnect: bool = False,
) -> Opening[AsyncRealtimeConnection]:
    """A session over the connections that a function opens, each with a token of its own."""

    async def connect() -> AsyncRealtimeConnection:
        line = ReconnectingConnection(await open_socket(), open_socket if reconnect else None)
        return AsyncRealtimeConnection(line, encode, decode)

    return Opening(connect)


def open_websocket(
    open_socket: Callable[[], Awaitable[WebSocket]],
) -> Opening[WebSocketConnection]:
    """A connection that a function opens."""

    async def connect() -> WebSocketConnection:
        return WebSocketConnection(await open_socket())

    return Opening(connect)
