"""`JobWatcher`: the statuses of a queue job, from its status stream or from polls.

A status stream is an optimization only. When it cannot be opened, is interrupted or idle, the
watcher polls, and opens another stream later if it may. While all slots of streams are taken, it
waits for one and polls meanwhile: every two seconds at first, every 15 seconds later, and less
often when very many jobs wait, but at least once a minute.

Keys and endpoints that share a client have equal parts of the streams and of the polls. A stream
whose slot is requested by another key or endpoint costs its job one more request. A job costs three
requests if it gets a stream in time, and one more for each poll.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from fal_async._dispatch.call_state import use_call_state
from fal_async._dispatch.limits import Share
from fal_async._http.response import ExchangeFailed
from fal_async._http.transports import httpx_is_mocked
from fal_async._net.threads import decode
from fal_async._net.time_slice import SlicedDecoder
from fal_async._protocol import queue
from fal_async._protocol.logs import StatusFilter
from fal_async._protocol.queue import read_status_event
from fal_async._protocol.response import is_event_stream
from fal_async._protocol.retry import POLLING, WAITING_FOR_STREAM, backoff_delays, shared_interval
from fal_async._protocol.sse import SSEDecoder
from fal_async.errors import FalClientHTTPError, InvalidResponseError, TransportError
from fal_async.types import Completed, InProgress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from fal_async._dispatch.call_state import CallState
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._http.response import StreamedResponse
    from fal_async.types import Status

__all__ = ["JobWatcher"]

#: How many streams of one job may end early before the watcher only polls.
MAX_STREAM_BREAKS: Final = 3
#: How long the end of a stream is waited for after COMPLETED, in seconds, to reuse its connection.
STREAM_DRAIN_TIMEOUT: Final = 0.05
#: The approximate size of a log line, in bytes.
LOG_LINE_SIZE: Final = 64


class JobWatcher:
    """Watches one job until it has completed.

    Args:
        dispatcher: Executes the requests.
        state: The state of the call that waits for the job.
        status_url: The URL of the job's status.
        application: The endpoint id.
        request_id: The job's id.
        with_logs: Whether statuses contain log lines.
        interval: Poll with this delay, in seconds; ``None`` uses the status stream, or polls with
            increasing delays.
        poll_immediately: Whether to poll before the first delay if there is no stream.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        state: CallState,
        *,
        status_url: str,
        application: str,
        request_id: str,
        with_logs: bool,
        interval: float | None,
        poll_immediately: bool,
    ) -> None:
        self._dispatcher = dispatcher
        self._state = state
        self._request_id = request_id
        self._lanes = dispatcher.resources.lanes.get()
        self._poll = queue.status(
            status_url, application=application, request_id=request_id, with_logs=with_logs
        )
        self._watch = queue.status_stream(
            status_url, application=application, request_id=request_id, with_logs=with_logs
        )
        self._tenant = id(dispatcher.credentials)
        self._share = Share(self._tenant, application)
        self._interval = interval
        self._poll_immediately = poll_immediately
        self._filter = StatusFilter(with_logs=with_logs, repeats=interval is not None)
        # Mocks of httpx know the requests of polling only.
        may_stream = dispatcher.resources.limits.max_streams > 0 and not httpx_is_mocked()
        self._streams_left = MAX_STREAM_BREAKS if may_stream and interval is None else 0
        self._delays = (
            backoff_delays(
                random.random,
                WAITING_FOR_STREAM,
                lambda: shared_interval(
                    self._lanes.streams.waiting(self._share),
                    dispatcher.resources.limits.polls_per_second,
                ),
            )
            if self._streams_left
            else backoff_delays(random.random, POLLING)
        )
        self._response: StreamedResponse | None = None
        self._decoder = SlicedDecoder(SSEDecoder().feed)

    async def statuses(self) -> AsyncGenerator[Status, None]:
        """Yield each new status of the job, up to and including `Completed`."""
        try:
            while True:
                status = await self._receive() if await self._find_stream() else None
                if status is None:
                    await self._close_stream()
                    with use_call_state(self._state):
                        status = await self._dispatcher.execute(self._poll)
                logs = status.logs if isinstance(status, InProgress | Completed) else ()
                size = len(logs) * LOG_LINE_SIZE
                new_status = await decode(partial(self._filter.new_status, status), size)
                if new_status is not None:
                    self._state.observer.change_status(self._request_id, new_status)
                    yield new_status
                if isinstance(status, Completed):
                    return
        finally:
            self._streams_left = 0
            await self._close_stream()

    async def _find_stream(self) -> bool:
        """Return whether a stream is open: open one when a slot is free before the next poll."""
        if self._response is not None:
            return True
        streams = self._lanes.streams
        has_slot = self._streams_left > 0 and streams.try_acquire(self._share)
        if not has_slot and not await self._wait_before_poll():
            return False
        try:
            with use_call_state(self._state):
                self._response = await self._dispatcher.stream(
                    self._watch, release_slot=partial(streams.release, self._share)
                )
        except (FalClientHTTPError, TransportError, InvalidResponseError):
            self._disable_streaming()  # a failure that is not the stream's own fails polls as well
            return False
        self._decoder = SlicedDecoder(SSEDecoder().feed)
        if is_event_stream(self._response.headers):
            return True
        await self._close_stream()
        self._disable_streaming()
        return False

    async def _wait_before_poll(self) -> bool:
        """Wait until the next poll is due; return true once a slot was acquired before that."""
        if self._poll_immediately:
            self._poll_immediately = False
        elif self._interval is not None:
            await anyio.sleep(self._interval)
        elif await self._wait_for_slot(next(self._delays)):
            return True
        if self._interval is not None:
            return False
        delay = self._lanes.poll_rate.reserve(anyio.current_time(), self._tenant)
        return await self._wait_for_slot(delay)

    async def _wait_for_slot(self, seconds: float) -> bool:
        if not self._streams_left:
            await anyio.sleep(seconds)
        elif seconds:
            with anyio.move_on_after(seconds):
                await self._lanes.streams.acquire(self._share)
                return True
        return False

    async def _receive(self) -> Status | None:
        """Receive the next status; ``None`` when the stream or its slot has to be released."""
        status: Status | None = None
        if not self._share.is_requested:
            with anyio.CancelScope() as scope:
                self._share.on_requested = scope.cancel
                try:
                    status = await self._next_event()
                finally:
                    self._share.on_requested = None
        if isinstance(status, Completed):
            with anyio.move_on_after(STREAM_DRAIN_TIMEOUT):
                await self._next_event()
        return status

    async def _next_event(self) -> Status | None:
        """Receive the status of the next event; ``None`` at the end, or if the stream failed."""
        assert self._response is not None  # noqa: S101 -- `_find_stream` has opened it
        try:
            while True:
                for event in self._decoder.items:
                    return await decode(partial(read_status_event, event), len(event.data))
                if await self._decoder.advance():
                    continue
                chunk = await self._response.next_chunk()
                if chunk is None:
                    return None
                self._decoder.feed(chunk)
        except (ExchangeFailed, InvalidResponseError):
            return None

    async def _close_stream(self) -> None:
        response, self._response = self._response, None
        if response is None:
            return
        if not self._share.is_requested:
            self._streams_left -= 1
        if self._streams_left <= 0:
            self._disable_streaming()
        await response.aclose()

    def _disable_streaming(self) -> None:
        self._streams_left = 0
        self._delays = backoff_delays(random.random, POLLING)
