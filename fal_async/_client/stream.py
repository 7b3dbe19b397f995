"""`EventStream`: the output of an app, event by event."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, Self

import anyio

from fal_async._client.result import finalize_output
from fal_async._core.annotations import set_module
from fal_async._dispatch.call_observer import NO_OBSERVER
from fal_async._dispatch.call_state import CallState, use_call_state
from fal_async._http.response import ExchangeFailed
from fal_async._net.time_slice import SlicedDecoder
from fal_async._protocol.response import is_event_stream
from fal_async._protocol.sse import SSEDecoder
from fal_async._protocol.stream_events import read_events
from fal_async.errors import InvalidRequestError, StreamInterruptedError

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Iterator,
        Mapping,
    )

    from typing_extensions import TypeVar

    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._http.response import StreamedResponse
    from fal_async._protocol.operation import Operation

    R = TypeVar("R")
    T = TypeVar("T", default=dict[str, Any])
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["EventStream"]


@set_module("fal_async")
class EventStream(Generic[T]):
    """The output of an app, event by event. ``async with`` or the first iteration opens it.

    The end of ``async with`` closes the connection, which stops an app that checks for disconnects.
    Freeing the stream closes it, too: in CPython, breaking out of a loop over a stream to which
    there is no other reference closes it immediately.

    An event is decoded JSON, or text if it is not JSON. A response that is not an event stream
    yields its bytes, chunk by chunk. A stream has one reader at a time.

    Example:
        >>> async def main() -> None:
        ...     async with fal_async.stream("demo/stream", {"steps": 2}) as events:
        ...         async for event in events:
        ...             print(event["step"])
        >>> anyio.run(main)
        1
        2
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        operation: Operation[None],
        *,
        prepare: Callable[[], Awaitable[Operation[None]]] | None = None,
        timeout: float | None,
        idle_timeout: float | None,
        output: type[T] | None,
    ) -> None:
        self._source = _ResponseReader(dispatcher, operation, prepare, timeout, idle_timeout)
        self._output = output
        self._decoder: SlicedDecoder[T] = SlicedDecoder(lambda _: iter(()))  # until it is open
        self._events_received = 0
        self._is_reading = False

    @property
    def request_id(self) -> str | None:
        """The id of the request; ``None`` before the stream is open."""
        return self._source.request_id

    @property
    def response_headers(self) -> Mapping[str, str]:
        """The response headers, names in lower case; empty before the stream is open."""
        return self._source.headers

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            for item in self._decoder.items:
                self._events_received += 1
                return item
        except BaseException as error:
            await self._close_after(error)
            raise
        return await self._read_more()

    async def aclose(self) -> None:
        """Close the connection, which ends the stream. It may be called at any time, repeatedly."""
        self._decoder.drop()
        await self._source.aclose()

    async def _close_after(self, error: BaseException) -> None:
        is_end = isinstance(error, StopAsyncIteration)
        self._source.state.observer.end(None if is_end else error, closed=self._source.was_closed)
        await self.aclose()

    async def _open(self) -> None:
        if not self._source.was_opened:
            await self._source.open()
            self._decoder.decode = _Decoder(self._source, self._output)

    async def _read_more(self) -> T:
        if self._is_reading:
            raise InvalidRequestError("cannot read the stream: another task is reading it")
        self._is_reading = True
        try:
            await self._open()
            while True:
                while await self._decoder.advance():
                    for item in self._decoder.items:
                        self._events_received += 1
                        return item
                self._decoder.feed(await self._next_chunk())
        except BaseException as error:
            await self._close_after(error)
            raise
        finally:
            self._is_reading = False

    async def _next_chunk(self) -> bytes:
        try:
            chunk = await self._source.next_chunk()
        except ExchangeFailed as error:
            raise self._interrupted(error.failure.reason) from error.__cause__
        if chunk is not None:
            return chunk
        if isinstance(self._decoder.decode, _Decoder) and self._decoder.decode.pending:
            raise self._interrupted("it ended within an event")
        raise StopAsyncIteration

    def _interrupted(self, reason: str) -> Exception:
        """Make the error of an interrupted stream, or the end of a stream that was closed."""
        if self._source.was_closed:
            return StopAsyncIteration()
        return StreamInterruptedError(reason, self._events_received, request_id=self.request_id)


class _Decoder:
    """Decodes the chunks of an event stream into its events; other chunks are the items."""

    def __init__(self, source: _ResponseReader, output: type[Any] | None) -> None:
        self._dispatcher = source.dispatcher
        self._request_id = source.request_id
        self._observer = source.state.observer
        self._output = output
        self._decoder = SSEDecoder() if source.is_events else None

    @property
    def pending(self) -> bool:
        return self._decoder is not None and self._decoder.pending

    def __call__(self, chunk: bytes) -> Iterator[Any]:
        items: Iterator[Any] = iter((chunk,))
        if self._decoder is not None:
            items = read_events(self._decoder.feed(chunk), request_id=self._request_id)
            if self._output is not None:
                items = (finalize_output(item, self._output, self._dispatcher) for item in items)
        return items if self._observer is NO_OBSERVER else self._observe(items)

    def _observe(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self._observer.receive_event()
            yield item


class _ResponseReader:
    """Opens and reads the response of a stream within its timeouts.

    Attributes:
        dispatcher: Executes the operation.
        was_opened: Whether the request was sent, perhaps without success.
        was_closed: Whether the stream was closed, perhaps before it was open.
        headers: The response headers.
        state: The state of the call.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        operation: Operation[None],
        prepare: Callable[[], Awaitable[Operation[None]]] | None,
        timeout: float | None,
        idle_timeout: float | None,
    ) -> None:
        self.was_opened = False
        self.was_closed = False
        self.headers: Mapping[str, str] = {}
        self.dispatcher = dispatcher
        self._operation = operation
        self._prepare = prepare
        self._timeout = timeout
        self._idle_timeout = idle_timeout
        self._deadline = math.inf
        self.state = CallState()
        self._response: StreamedResponse | None = None

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-fal-request-id")

    @property
    def is_events(self) -> bool:
        return is_event_stream(self.headers)

    async def open(self) -> None:
        """Send the request and wait for a successful response."""
        if self._timeout is not None:
            self._deadline = anyio.current_time() + self._timeout
        self.state = self.dispatcher.begin_call("stream", self._operation.application)
        try:
            with use_call_state(self.state):
                if self._prepare is not None:
                    self._operation = await self._with_deadline(self._prepare, math.inf)
                self.was_opened = True
                response = await self._with_timeouts(
                    lambda: self.dispatcher.stream(self._operation)
                )
        except BaseException as error:
            self.state.observer.end(error)
            raise
        self._response, self.headers = response, response.headers
        if self.was_closed:  # by another task, while this one waited
            await self.aclose()

    async def next_chunk(self) -> bytes | None:
        """Return the next bytes, or ``None`` at the end; raises `ExchangeFailed`."""
        if self._response is None:
            return None
        chunk = await self._with_timeouts(self._response.next_chunk)
        if chunk is not None:
            self.state.observer.receive_bytes(len(chunk))
        return chunk

    async def aclose(self) -> None:
        """Close the connection."""
        self.was_closed = True
        self.state.observer.end(None, closed=True)
        response, self._response = self._response, None
        if response is not None:
            await response.aclose()

    async def _with_timeouts(self, step: Callable[[], Awaitable[R]]) -> R:
        """Run one step within the timeouts. Its scope ends with it: none is open across a yield."""
        if self._timeout is None and self._idle_timeout is None:
            return await step()
        idle_deadline = math.inf
        if self._idle_timeout is not None:
            idle_deadline = anyio.current_time() + self._idle_timeout
        return await self._with_deadline(step, idle_deadline)

    async def _with_deadline(self, step: Callable[[], Awaitable[R]], idle_deadline: float) -> R:
        with anyio.CancelScope(deadline=min(idle_deadline, self._deadline)):
            return await step()
        passed = self._timeout if self._deadline <= idle_deadline else self._idle_timeout
        self.state.request_id = self.request_id
        raise self.state.timeout_error(passed or 0)
