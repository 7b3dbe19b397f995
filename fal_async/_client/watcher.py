"""Waiting for a queue job: by its status stream while there is a place, else by polling.

The stream is never trusted as the end. When it cannot be opened, drops or goes silent, the wait
goes on by polling from where it stands, and moves back to a stream when it may. Where all slots
are taken, it waits for one, and polls meanwhile, every two seconds at first and every 15 later, or
less often where very many wait, but at least once a minute.

Keys and endpoints that share a client's connections have equal parts of the streams and polls. A
stream that has to give way to another key or endpoint costs its job one more request. A job costs
three requests where it gets a stream in time, and one more for each time that it is polled.
"""

from __future__ import annotations

import random
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from fal_async._dispatch.fair_slots import Share
from fal_async._http.mocks import httpx_is_mocked
from fal_async._http.response import ExchangeFailed
from fal_async._net.threads import decode
from fal_async._net.time_slices import SlicedDecoder
from fal_async._protocol import queue
from fal_async._protocol.queue import read_status
from fal_async._protocol.response import is_event_stream
from fal_async._protocol.retry import POLLING, WAITING_FOR_STREAM, backoff_delays, shared_interval
from fal_async._protocol.serialization import decode_json
from fal_async._protocol.sse import SSEDecoder
from fal_async.errors import FalClientHTTPError, InvalidResponseError, TransportError
from fal_async.types import Completed

if TYPE_CHECKING:
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._dispatch.limits import LaneLimits
    from fal_async._http.response import StreamedResponse
    from fal_async._protocol.operation import Operation
    from fal_async._protocol.sse import Event
    from fal_async.types import Status

__all__ = ["JobWatcher"]

#: How often one wait opens a stream anew after a stream that broke.
MAX_STREAM_BREAKS: Final = 3
#: How long the end of a stream is waited for after COMPLETED, in seconds, to keep its connection.
STREAM_DRAIN_TIMEOUT: Final = 0.05


class JobWatcher:
    """Reads the statuses of one job, one after another, as they come; repeats included.

    Args:
        performer: Does the calls.
        status_url: Where the job's status is read.
        application: The endpoint id, for errors.
        request_id: The job.
        with_logs: Whether statuses carry log lines.
        interval: Poll with this pause, in seconds; ``None`` chooses by itself.
        look_at_once: Whether a wait that polls asks before its first pause.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        status_url: str,
        application: str,
        request_id: str,
        with_logs: bool,
        interval: float | None,
        poll_immediately: bool,
    ) -> None:
        self._dispatcher = dispatcher
        self._gates: LaneLimits = dispatcher.line.gates.get()
        self._job = status_url, application, request_id
        self._tenant = id(dispatcher.credentials)
        self._share = Share(self._tenant, application)
        self._with_logs = with_logs
        self._interval = interval
        self._look_at_once = poll_immediately
        may_stream = interval is None and dispatcher.line.limits.max_streams > 0
        may_stream = may_stream and not httpx_is_mocked()  # mocks know the requests of polling
        self._streams_left = MAX_STREAM_BREAKS if may_stream else 0
        self._pauses = backoff_delays(random.random, POLLING)
        if may_stream:
            self._pauses = backoff_delays(random.random, WAITING_FOR_STREAM, self._shared_interval)
        self._stream: _StatusStream | None = None

    @cached_property
    def _status(self) -> Operation[Status]:
        url, application, request_id = self._job
        return queue.status(
            url, application=application, request_id=request_id, with_logs=self._with_logs
        )

    @cached_property
    def _watch(self) -> Operation[None]:
        url, application, request_id = self._job
        return queue.status_stream(
            url, application=application, request_id=request_id, with_logs=self._with_logs
        )

    async def next(self) -> Status:
        """The next status, whether or not it differs from the one before."""
        if self._stream is None and self._find_slot():
            await self._open_stream()
        if self._stream is None and await self._wait_before_poll():
            await self._open_stream()
        if self._stream is not None:
            status = await self._next_of_stream(self._stream)
            if isinstance(status, Completed):
                await self._stream.end()
            if status is not None:
                return status
            await self._close_stream()
        return await self._dispatcher.execute(self._status)

    async def aclose(self) -> None:
        """Stop watching."""
        self._streams_left = 0
        await self._close_stream()

    async def _next_of_stream(self, stream: _StatusStream) -> Status | None:
        """The next status; ``None`` also when the slot of the stream is asked back."""
        if self._share.is_wanted:
            return None
        with anyio.CancelScope() as scope:
            self._share.on_wanted = scope.cancel
            try:
                return await stream.next()
            finally:
                self._share.on_wanted = None
        return None

    def _find_slot(self) -> bool:
        return self._streams_left > 0 and self._gates.streams.try_acquire(self._share)

    def _shared_interval(self) -> float:
        waiting = self._gates.streams.waiting_beside(self._share)
        return shared_interval(waiting, self._dispatcher.line.limits.polls_per_second)

    async def _wait_before_poll(self) -> bool:
        """Wait until it is time to ask; true when a slot came free before that."""
        if self._look_at_once:
            self._look_at_once = False
        elif self._interval is not None:
            await anyio.sleep(self._interval)
        elif await self._wait_for_slot(next(self._pauses)):
            return True
        if self._interval is not None:
            return False
        delay = self._gates.polls.reserve(anyio.current_time(), self._tenant)
        return await self._wait_for_slot(delay)

    async def _wait_for_slot(self, seconds: float) -> bool:
        """Wait for a slot for so long; true when there is one."""
        if not self._streams_left:
            await anyio.sleep(seconds)
        elif seconds:
            with anyio.move_on_after(seconds):
                await self._gates.streams.acquire(self._share)
                return True
        return False

    async def _open_stream(self) -> None:
        """Open a stream, for which there is a slot."""
        try:
            response = await self._dispatcher.stream(self._watch)
        except (FalClientHTTPError, TransportError, InvalidResponseError):
            self._disable_streaming()  # polling meets the same trouble, if it is one, and tells
        else:
            self._stream = _StatusStream(response)
        finally:
            if self._stream is None:
                self._gates.streams.release(self._share)
        if self._stream is not None and not self._stream.is_event_stream:
            await self._close_stream()
            self._disable_streaming()

    async def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if not self._share.is_wanted:
            self._streams_left -= 1
        if self._streams_left <= 0:
            self._disable_streaming()
        self._gates.streams.release(self._share)
        await stream.aclose()

    def _disable_streaming(self) -> None:
        self._streams_left = 0
        self._pauses = backoff_delays(random.random, POLLING)


class _StatusStream:
    """The statuses that an open response carries."""

    def __init__(self, response: StreamedResponse) -> None:
        self._response = response
        self._decoder = SlicedDecoder(SSEDecoder().feed)
        self.is_event_stream = is_event_stream(response.headers)

    async def next(self) -> Status | None:
        """The next status; ``None`` when the stream has ended, broken or gone silent."""
        try:
            while True:
                for event in self._decoder.items:
                    return await decode(partial(_decode, event), len(event.data))
                if await self._decoder.advance():
                    continue
                chunk = await self._response.next_chunk()
                if chunk is None:
                    return None
                self._decoder.feed(chunk)
        except (ExchangeFailed, InvalidResponseError):
            return None

    async def end(self) -> None:
        """Read up to the end if it comes soon, so that the connection can be used again."""
        with anyio.move_on_after(STREAM_DRAIN_TIMEOUT):
            await self.next()

    async def aclose(self) -> None:
        await self._response.aclose()


def _decode(event: Event) -> Status:
    try:
        raw: Any = decode_json(event.data)
    except ValueError as error:
        raise InvalidResponseError(f"a status event is not JSON: {event.data[:80]!r}") from error
    if not isinstance(raw, dict):
        raise InvalidResponseError(f"a status event is not an object: {event.data[:80]!r}")
    return read_status(cast("dict[str, Any]", raw))
