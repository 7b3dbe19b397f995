"""Connections to the WebSockets of apps: realtime sessions, and apps with their own protocol."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self, cast

import anyio
from anyio.lowlevel import checkpoint

from fal_async._core.annotations import set_module
from fal_async._net.tasks import on_abandoned_result
from fal_async._protocol.realtime import (
    ErrorMessage,
    PlatformMessage,
    SessionTimeout,
    Unauthorized,
    decode_message,
)
from fal_async._protocol.serialization import encode_msgpack
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

__all__ = ["AsyncRealtimeConnection", "ReconnectingWebSocket", "WebSocketConnection"]

#: The close codes of a normal end: normal closure, going away, no code.
NORMAL_CLOSE_CODES: Final = frozenset({1000, 1001, 1005})


class _Receiver:
    """Returns a message again if the thread that called for it was interrupted."""

    def __init__(self) -> None:
        self._redeliver: deque[Any] = deque()

    async def _keep_for_next_call(self, message: object) -> None:
        self._redeliver.append(message)

    async def _receive_again(self) -> Any:
        """Return the oldest message to deliver again; raise it if it is an error."""
        await checkpoint()
        message = self._redeliver.popleft()
        if isinstance(message, FalClientError):
            raise message
        return message


_redeliver_abandoned = on_abandoned_result(_Receiver._keep_for_next_call, is_redelivered=True)  # pyright: ignore[reportPrivateUsage] -- of the class above


@set_module("fal_async")
class AsyncRealtimeConnection(_Receiver):
    """A session with a realtime app, which receives arguments and sends results.

    Several tasks may send; only one may receive at a time. ``async for`` yields the results until
    the session ends: by a normal close, or because it was idle for too long.

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
        websocket: ReconnectingWebSocket,
        encode: Callable[[Any], str | bytes] | None,
        decode: Callable[[bytes], Any] | None,
    ) -> None:
        super().__init__()
        self._websocket = websocket
        self._encode = encode or encode_msgpack
        self._decode = decode

    def __repr__(self) -> str:
        return f"{type(self).__name__}(close_code={self.close_code!r})"

    @property
    def close_code(self) -> int | None:
        """The close code, 1006 for a lost connection; ``None`` while open."""
        return self._websocket.current.close_code

    @property
    def close_reason(self) -> str | None:
        """The close reason, which may be empty; ``None`` while open."""
        return self._websocket.current.close_reason

    async def send(self, arguments: object) -> None:
        """Send an input; with ``reconnect=True``, reconnect first if the connection was lost.

        Args:
            arguments: A mapping or a pydantic model, which may contain bytes; or any value that
                `encode_message` accepts.

        Raises:
            RealtimeDisconnectedError: The connection is closed, and `reconnect` is false.
            InvalidRequestError: The arguments cannot be encoded.
            FalClientHTTPError: The platform rejected the new connection.
            ConnectionFailedError: The new connection failed.
        """
        message = self._encode(arguments)
        try:
            await self._websocket.current.send(message)
        except (RealtimeDisconnectedError, InvalidResponseError):
            # Nothing of the message was sent.
            if not self._websocket.can_reconnect:
                raise
        else:
            return
        await self._websocket.reconnect()
        await self._websocket.current.send(message)

    @_redeliver_abandoned
    async def recv(self) -> Any:
        """Receive the next result, which may contain bytes and may be ``None``.

        Raises:
            RealtimeError: The app failed; or, with the error ``"TIMEOUT"``, the session has ended.
            RealtimeDisconnectedError: The connection is closed, and all earlier results were
                received. Inputs without a result are lost.
            AuthenticationError: The token was rejected, or has expired.
            InvalidResponseError: The message cannot be decoded.
            InvalidRequestError: Another task is receiving.
        """
        if self._redeliver:
            return await self._receive_again()
        while True:
            source = self._websocket.source
            try:
                received = await source.recv()
            except (RealtimeDisconnectedError, InvalidResponseError):
                self._websocket.mark_ended(source)
                raise
            message = decode_message(received, self._decode)
            if isinstance(received, memoryview):
                source.reuse(received)
            if not isinstance(message, PlatformMessage):
                return message
            match message:
                case ErrorMessage():
                    self._websocket.end(source)
                    raise RealtimeError(message.error, message.reason, message.payload)
                case SessionTimeout():
                    self._websocket.end(source)
                    raise RealtimeError("TIMEOUT", message.reason, message.payload)
                case Unauthorized():
                    self._websocket.end(source)
                    raise AuthenticationError(
                        "the token of the session was rejected or has expired",
                        401,
                        body=message.payload,
                    )
                case _:  # metadata, such as timings
                    continue

    def __aiter__(self) -> Self:
        return self

    @_redeliver_abandoned
    async def __anext__(self) -> Any:
        try:
            return await self.recv()
        except RealtimeDisconnectedError as error:
            raise _end_of_iteration(error) from None
        except RealtimeError as error:
            if error.error == "TIMEOUT":
                raise StopAsyncIteration from None
            raise

    async def close(self) -> None:
        """End the session, and wait up to 5 seconds for the server to confirm."""
        await self._websocket.close()


class ReconnectingWebSocket:
    """A WebSocket that `send` opens again after its connection was lost.

    Messages of the lost connection, and its end, are received before those of the next one.

    Args:
        websocket: The first connection.
        connect: Opens the next connection; ``None`` disables reconnecting.

    Attributes:
        current: The connection to send to.
        source: The connection to receive from.
    """

    def __init__(
        self, websocket: WebSocket, connect: Callable[[], Awaitable[WebSocket]] | None
    ) -> None:
        self.current: WebSocket = websocket
        self._connect = connect
        self._connect_lock = anyio.Lock()
        self.source: WebSocket = websocket  # the lost one while it has unread messages or an end
        self._ended: WebSocket | None = None  # its end was received
        self._closed = False

    def __del__(self) -> None:
        self.current.finalize()

    @property
    def can_reconnect(self) -> bool:
        """True if `reconnect` may be called."""
        return self._connect is not None and not self._closed

    async def reconnect(self) -> None:
        """Open the next connection, unless another task has done so."""
        async with self._connect_lock:
            if self._connect is None or self.current.is_open:
                return
            lost, self.current = self.current, await self._connect()
            if self.source is lost and self._ended is lost:
                self.source = self.current
            lost.abort()
            if self._closed:
                self.current.abort()

    def end(self, websocket: WebSocket) -> None:
        """End a connection because of its last message."""
        self.mark_ended(websocket)
        if self._connect is not None:
            websocket.abort()

    def mark_ended(self, websocket: WebSocket) -> None:
        """Note that the end of a connection was received."""
        self._ended = websocket
        self.source = self.current

    async def close(self) -> None:
        self._closed = True
        await self.current.close()


@set_module("fal_async")
class WebSocketConnection(_Receiver):
    """A WebSocket of an app with its own protocol, for text and bytes in both directions.

    Several tasks may send; only one may receive at a time. ``async for`` yields the messages until
    a normal close.

    Example:
        >>> async def main() -> None:
        ...     async with fal_async.ws_connect("demo/socket") as socket:
        ...         await socket.send("hello")
        ...         print(await socket.recv())
        >>> anyio.run(main)
        hello
    """

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__()
        self._websocket = websocket

    def __del__(self) -> None:
        self._websocket.finalize()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(close_code={self.close_code!r})"

    @property
    def close_code(self) -> int | None:
        """The close code, 1006 for a lost connection; ``None`` while open."""
        return self._websocket.close_code

    @property
    def close_reason(self) -> str | None:
        """The close reason, which may be empty; ``None`` while open."""
        return self._websocket.close_reason

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send text or bytes; a message is never sent in part, even if the task is cancelled.

        Raises:
            RealtimeDisconnectedError: The connection is closed.
            InvalidRequestError: The message is neither text nor bytes.
        """
        await self._websocket.send(message)

    @_redeliver_abandoned
    async def recv(self) -> str | bytes:
        """Receive the next message.

        Raises:
            RealtimeDisconnectedError: The connection is closed, and all earlier messages were
                received.
            InvalidResponseError: The server violated the protocol, or the message is too long.
            InvalidRequestError: Another task is receiving.
        """
        if self._redeliver:
            return cast("str | bytes", await self._receive_again())
        received = await self._websocket.recv()
        if not isinstance(received, memoryview):
            return received
        message = bytes(received)
        self._websocket.reuse(received)
        return message

    def __aiter__(self) -> Self:
        return self

    @_redeliver_abandoned
    async def __anext__(self) -> str | bytes:
        try:
            return await self.recv()
        except RealtimeDisconnectedError as error:
            raise _end_of_iteration(error) from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait up to 5 seconds for the server to confirm.

        Args:
            code: The close code: 1000 for a normal closure, or a code from 3000 to 4999.
            reason: The close reason, up to 123 bytes in UTF-8.
        """
        await self._websocket.close(code, reason)


def _end_of_iteration(error: RealtimeDisconnectedError) -> Exception:
    return StopAsyncIteration() if error.close_code in NORMAL_CLOSE_CODES else error
