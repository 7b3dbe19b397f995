"""HTTP requests to one endpoint over one WebSocket, with responses in the order of the requests."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.lowlevel import checkpoint

from fal_async._client.result import make_result
from fal_async._core.annotations import set_module
from fal_async._http.response import DecodedBody
from fal_async._net.errors import DecodingError
from fal_async._net.tasks import on_abandoned_result
from fal_async._net.time_slice import SlicedDecoder
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
from fal_async.errors import FalClientError, InvalidRequestError, InvalidResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from fal_async._websocket.connection import WebSocket
    from fal_async.types import Arguments

__all__ = ["HTTPOverWebSocket", "WebSocketResponse"]


@set_module("fal_async")
class HTTPOverWebSocket:
    """A WebSocket for HTTP requests to one endpoint.

    Several tasks may send requests; the responses arrive in the order of the requests. A response
    that is a stream must be read to its end, or closed, before the next response can be received.

    Example:
        >>> async def main() -> None:
        ...     async with fal_async.http_over_websocket("demo/echo") as requests:
        ...         response = await requests.request({"prompt": "a cat"})
        ...         print(response.status_code, response.result["prompt"])
        >>> anyio.run(main)
        200 a cat
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._pipeline = _Pipeline(websocket)

    @on_abandoned_result(lambda _, response: response.aclose())
    async def request(self, arguments: Arguments) -> WebSocketResponse:
        """Send a request, and receive its response: all of it, or the headers of a stream.

        Args:
            arguments: The input, a mapping of JSON values or a pydantic model.

        Raises:
            FalClientHTTPError: The platform or the app responded with an error.
            RealtimeDisconnectedError: The connection was closed before the response.
            InvalidResponseError: The response cannot be decoded.
            InvalidRequestError: The arguments cannot be encoded.
        """
        pending = await self._pipeline.send(encode_arguments(arguments).decode())
        try:
            start = await pending.read()
            assert isinstance(start, ResponseStart)  # noqa: S101 -- `ResponseDecoder` ensures it
            headers = {"x-fal-request-id": start.request_id, **start.headers}
            head = Response(status_code=start.status_code, headers=headers)
            if head.ok and head.content_type and not head.content_type.endswith(("/json", "+json")):
                return WebSocketResponse(pending, head, None)
            body = bytearray()
            try:
                async for chunk in _decode_body(pending, head):
                    body += chunk
                    if len(body) > MAX_OUTPUT:
                        raise InvalidResponseError(
                            f"the response must have at most {MAX_OUTPUT} bytes, got more",
                            request_id=head.request_id,
                        )
            except DecodingError as error:
                if head.ok:  # the status of an error response is enough
                    raise InvalidResponseError(str(error), request_id=head.request_id) from error
                pending.discard()
            response = replace(head, body=bytes(body))
            raise_for_status(response)
            return WebSocketResponse(pending, head, make_result(parse_output(response)))
        except BaseException:
            pending.discard()
            raise

    async def close(self) -> None:
        """Close the connection, and wait up to 5 seconds for the server to confirm."""
        await self._pipeline.close()


@set_module("fal_async")
class WebSocketResponse:
    """A response to a request over a WebSocket.

    ``async for`` reads a stream: it yields the data of events, decoded from JSON where possible, or
    the chunks of any other content as bytes. One task at a time may read. ``async with`` closes
    the response.

    Attributes:
        status_code: The HTTP status code, from 200 to 299.
        headers: The response headers, with names in lower case.
        request_id: The id of the request.
        result: The output if it is JSON; ``None`` for a stream.
    """

    def __init__(self, pending: _PendingResponse, head: Response, result: Any) -> None:
        self.status_code: int = head.status_code
        self.headers: Mapping[str, str] = head.headers
        self.request_id: str | None = head.request_id
        self.result: Any = result
        self._pending = pending
        self._body = _decode_body(pending, head)
        self._reading = False
        sse_decoder, request_id = SSEDecoder(), head.request_id

        def decode(chunk: bytes) -> Iterator[Any]:
            return read_events(sse_decoder.feed(chunk), request_id=request_id)

        is_event_stream = head.content_type == "text/event-stream"
        self._decoder: SlicedDecoder[Any] = SlicedDecoder(
            decode if is_event_stream else lambda chunk: iter((chunk,))
        )

    def __repr__(self) -> str:
        return f"WebSocketResponse({self.status_code}, request_id={self.request_id!r})"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._reading:
            raise InvalidRequestError("cannot read the response: another task is reading it")
        self._reading = True
        try:
            while True:
                for item in self._decoder.items:
                    return item
                if not await self._decoder.advance():
                    self._decoder.feed(await anext(self._body))
        except DecodingError as error:
            self._pending.discard()
            raise InvalidResponseError(str(error), request_id=self.request_id) from error
        except FalClientError:
            self._pending.discard()
            raise
        finally:
            self._reading = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Discard the rest of a stream, so that the next response can be received."""
        self._decoder.drop()
        self._pending.discard()
        await checkpoint()


class _Pipeline:
    """Requests on one WebSocket, and the queue of their responses.

    The task that sent a request reads the response. If it discards the response, the task that
    waits for the next one reads the rest.
    """

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._decoder = ResponseDecoder()
        self._read_lock = anyio.Lock(fast_acquire=True)
        self._queue: deque[_PendingResponse] = deque()

    def __del__(self) -> None:
        self._websocket.finalize()

    async def send(self, message: str) -> _PendingResponse:
        await self._websocket.send(message)
        pending = _PendingResponse(self)
        self._queue.append(pending)
        return pending

    async def read(self, pending: _PendingResponse) -> ResponseStart | BodyChunk | ResponseEnd:
        """Read the next part of a response, after all responses before it."""
        while (first := self._queue[0]) is not pending:
            if not first.is_done:
                await first.done.wait()
                continue
            async with self._read_lock:
                if self._queue[0] is first:  # discarded, and its end was not read
                    await self._read_next(first)
        async with self._read_lock:
            return await self._read_next(pending)

    async def _read_next(
        self, pending: _PendingResponse
    ) -> ResponseStart | BodyChunk | ResponseEnd:
        message = await self._websocket.recv()
        try:
            part = self._decoder.read(message)
        except InvalidResponseError:
            self._websocket.abort()  # later messages cannot be assigned to responses
            raise
        if isinstance(message, memoryview):
            self._websocket.reuse(message)
        if isinstance(part, ResponseEnd):
            self._queue.popleft()
            pending.done.set()
        return part

    async def close(self) -> None:
        await self._websocket.close()


class _PendingResponse:
    """A response in the queue of a pipeline."""

    def __init__(self, pipeline: _Pipeline) -> None:
        self._pipeline = pipeline
        self.done: anyio.Event = anyio.Event()

    @property
    def is_done(self) -> bool:
        """True if the response was received or discarded."""
        return self.done.is_set()

    async def read(self) -> ResponseStart | BodyChunk | ResponseEnd:
        return await self._pipeline.read(self)

    def discard(self) -> None:
        self.done.set()


def _decode_body(pending: _PendingResponse, head: Response) -> AsyncIterator[bytes]:
    encoding = head.headers.get("content-encoding")
    return _Body(pending) if encoding is None else DecodedBody(_Body(pending), encoding)


class _Body:
    """The chunks of a response body, still encoded."""

    def __init__(self, pending: _PendingResponse) -> None:
        self._pending = pending

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        part = None if self._pending.is_done else await self._pending.read()
        if not isinstance(part, BodyChunk):
            raise StopAsyncIteration
        return part.content
