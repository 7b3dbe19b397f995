"""HTTP requests to one endpoint, carried one after the other over one WebSocket."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.lowlevel import checkpoint

from fal_async._client.result import make_result
from fal_async._client.unclaimed import unclaimed
from fal_async._http.decoding import DecodedBody
from fal_async._net.errors import DecodingError
from fal_async._net.time_slices import SlicedDecoder
from fal_async._protocol.error_mapping import raise_for_status
from fal_async._protocol.http_over_websocket import (
    BodyChunk,
    ResponseDecoder,
    ResponseEnd,
    ResponseStart,
)
from fal_async._protocol.operation import MAX_OUTPUT
from fal_async._protocol.response import Response, parse_output
from fal_async._protocol.serialization import encode_arguments
from fal_async._protocol.sse import SSEDecoder
from fal_async._protocol.stream_events import read_events
from fal_async._websocket.opening import Opening
from fal_async.errors import FalClientError, InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from fal_async._websocket.connection import WebSocket
    from fal_async.types import Arguments

__all__ = ["HTTPOverWebSocket", "WebSocketResponse", "connect"]


async def _close_unclaimed(_: HTTPOverWebSocket, response: WebSocketResponse) -> None:
    """Close a response whose caller has left, so that the next one can arrive."""
    await response.aclose()


class HTTPOverWebSocket:
    """Requests to one endpoint over one connection.

    Several tasks may send requests, which are answered in order. A response that is a stream has
    to be
    read to its end, or closed, before the next one can arrive.

    Example:
        >>> async def main() -> None:
        ...     async with fal_async.http_over_websocket("demo/echo") as requests:
        ...         response = await requests.request({"prompt": "a cat"})
        ...         print(response.status_code, response.result["prompt"])
        >>> anyio.run(main)
        200 a cat
    """

    def __init__(self, socket: WebSocket) -> None:
        self._turns = _Pipeline(socket)

    @unclaimed(_close_unclaimed)
    async def request(self, arguments: Arguments) -> WebSocketResponse:
        """Send a request and wait for its response: all of it, or the head of a stream.

        Args:
            arguments: The input: a mapping of JSON values, or a pydantic model.

        Raises:
            FalClientHTTPError: The platform or the app answered with an error.
            RealtimeDisconnectedError: The connection is closed, and there will be no response.
            InvalidResponseError: The response cannot be read.
            InvalidRequestError: The arguments cannot be sent.
        """
        turn = await self._turns.take(encode_arguments(arguments).decode())
        try:
            return await _read_response(turn)
        except BaseException:
            turn.abandon()
            raise

    async def close(self) -> None:
        """Close the connection and wait, not for long, until the other side has agreed."""
        await self._turns.close()


async def _read_response(turn: _PendingResponse) -> WebSocketResponse:
    start = await turn.read()
    assert isinstance(start, ResponseStart)  # noqa: S101 -- `ReplyFrames` lets no reply begin otherwise
    headers = {"x-fal-request-id": start.request_id, **start.headers}
    head = Response(status_code=start.status_code, headers=headers)
    if head.ok and head.content_type and not head.content_type.endswith(("/json", "+json")):
        return WebSocketResponse(turn, head, None)
    body = bytearray()
    try:
        async for chunk in _body_of(turn, head):
            body += chunk
            if len(body) > MAX_OUTPUT:
                raise InvalidResponseError(
                    f"the response has more than {MAX_OUTPUT} bytes", request_id=head.request_id
                )
    except DecodingError as error:
        if head.ok:  # of an error, the status says enough
            raise InvalidResponseError(str(error), request_id=head.request_id) from error
        turn.abandon()
    response = replace(head, body=bytes(body))
    raise_for_status(response)
    return WebSocketResponse(turn, head, make_result(parse_output(response)))


def _body_of(turn: _PendingResponse, head: Response) -> AsyncIterator[bytes]:
    encoding = head.headers.get("content-encoding")
    return _Body(turn) if encoding is None else DecodedBody(_Body(turn), encoding)


class _Body:
    """The parts of the body of one response, as the frames carry them."""

    def __init__(self, turn: _PendingResponse) -> None:
        self._turn = turn

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        frame = None if self._turn.is_done else await self._turn.read()
        if not isinstance(frame, BodyChunk):
            raise StopAsyncIteration
        return frame.content


class WebSocketResponse:
    """The response to one request.

    A stream is read by ``async for``: events are decoded JSON, or text where they are not JSON;
    what is no stream of events is given as bytes, chunk by chunk. One task at a time may read.
    ``async with`` closes it.

    Attributes:
        status_code: The HTTP status, one of success.
        headers: Names in lower case.
        request_id: The id of the request.
        result: The output when it is JSON; ``None`` for a stream.
    """

    def __init__(self, turn: _PendingResponse, head: Response, result: Any) -> None:
        self.status_code: int = head.status_code
        self.headers: Mapping[str, str] = head.headers
        self.request_id: str | None = head.request_id
        self.result: Any = result
        self._turn = turn
        self._body = _body_of(turn, head)
        self._is_reading = False
        is_events = head.content_type == "text/event-stream"
        self._decoder: SlicedDecoder[Any] = SlicedDecoder(
            self._read_events(SSEDecoder()) if is_events else _as_it_is
        )

    def __repr__(self) -> str:
        return f"WebSocketResponse({self.status_code}, request_id={self.request_id!r})"

    def _read_events(self, decoder: SSEDecoder) -> Callable[[bytes], Iterator[Any]]:
        return lambda chunk: read_events(decoder.feed(chunk), request_id=self.request_id)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._is_reading:
            raise InvalidRequestError("another task is reading this response already")
        self._is_reading = True
        try:
            while True:
                for item in self._decoder.items:
                    return item
                if not await self._decoder.advance():
                    self._decoder.feed(await self._next_chunk())
        except FalClientError:
            self._turn.abandon()
            raise
        finally:
            self._is_reading = False

    async def _next_chunk(self) -> bytes:
        try:
            return await anext(self._body)
        except DecodingError as error:
            raise InvalidResponseError(str(error), request_id=self.request_id) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the rest of a stream unread, so that the next response can arrive."""
        self._decoder.drop()
        self._turn.abandon()
        await checkpoint()


def _as_it_is(chunk: bytes) -> Iterator[bytes]:
    yield chunk


class _Pipeline:
    """Responses come in the order of the requests, and each is read by whoever sent the request."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._frames = ResponseDecoder()
        self._reading = anyio.Lock(fast_acquire=True)
        self._queue: deque[_PendingResponse] = deque()

    def __del__(self) -> None:
        self._socket.abandon()

    async def close(self) -> None:
        await self._socket.close()

    async def take(self, message: str) -> _PendingResponse:
        await self._socket.send(message)
        turn = _PendingResponse(self)
        self._queue.append(turn)
        return turn

    async def read(self, turn: _PendingResponse) -> ResponseStart | BodyChunk | ResponseEnd:
        """The next part of the response whose turn it is, once the responses before it are over."""
        while (front := self._queue[0]) is not turn:
            if not front.is_done:
                await front.over.wait()
                continue
            async with self._reading:
                if self._queue[0] is front:  # given up, so that nobody else reads it to its end
                    await self._read_next(front)
        async with self._reading:
            return await self._read_next(turn)

    async def _read_next(self, turn: _PendingResponse) -> ResponseStart | BodyChunk | ResponseEnd:
        message = await self._socket.recv()
        try:
            frame = self._frames.read(message)
        except InvalidResponseError:
            self._socket.drop()  # whose response comes next is anybody's guess
            raise
        if isinstance(frame, ResponseEnd):
            self._queue.popleft()
            turn.over.set()
        return frame


class _PendingResponse:
    """The place of one response."""

    def __init__(self, turns: _Pipeline) -> None:
        self._turns = turns
        self.over: anyio.Event = anyio.Event()

    @property
    def is_done(self) -> bool:
        """Whether its owner reads no more of it."""
        return self.over.is_set()

    async def read(self) -> ResponseStart | BodyChunk | ResponseEnd:
        return await self._turns.read(self)

    def abandon(self) -> None:
        self.over.set()


def connect(open_socket: Callable[[], Awaitable[WebSocket]]) -> Opening[HTTPOverWebSocket]:
    """Requests over a connection that a function opens."""

    async def connect() -> HTTPOverWebSocket:
        return HTTPOverWebSocket(await open_socket())

    return Opening(connect)
