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
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from fal_async._dispatch.call_state import use_call_state
from fal_async._dispatch.fair_slots import Share
from fal_async._http.response import ExchangeFailed
from fal_async._http.transports import httpx_is_mocked
from fal_async._net.threads import decode
from fal_async._net.time_slice import SlicedDecoder
from fal_async._net.timers import call_later
from fal_async._net.waiters import Waiter
from fal_async._protocol import queue
from fal_async._protocol.logs import StatusFilter
from fal_async._protocol.queue import read_status_event
from fal_async._protocol.response import is_event_stream
from fal_async._protocol.retry import POLLING, WAITING_FOR_STREAM, Backoff, shared_interval
from fal_async._protocol.sse import SSEDecoder
from fal_async.errors import FalClientHTTPError, InvalidResponseError, TransportError
from fal_async.types import Completed, InProgress

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from fal_async._dispatch.call_state import CallState
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async._http.response import StreamedResponse
    from fal_async._protocol.sse import Event
    from fal_async.types import Status

__all__ = ["JobWatcher", "WatchedJob"]

#: How many streams of one job may end early before the watcher only polls.
MAX_STREAM_BREAKS: Final = 3
#: How long the end of a stream is waited for after COMPLETED, in seconds, to reuse its connection.
STREAM_DRAIN_TIMEOUT: Final = 0.05
#: The approximate size of a log line, in bytes.
LOG_LINE_SIZE: Final = 64


class WatchedJob(Protocol):
    """A job, such as an `AsyncRequestHandle`."""

    @property
    def request_id(self) -> str:
        """The job's id."""
        ...

    @property
    def status_url(self) -> str:
        """The URL of the job's status."""
        ...

    @property
    def application(self) -> str:
        """The endpoint id."""
        ...


class JobWatcher:
    """Watches one job until it has completed.

    Thousands of them may wait. So they have few objects, which do not refer to each other.

    Args:
        dispatcher: Executes the requests.
        state: The state of the call that waits for the job.
        job: The job.
        with_logs: Whether statuses contain log lines.
        interval: Poll with this delay, in seconds; ``None`` uses the status stream, or polls with
            increasing delays.
        poll_immediately: Whether to poll before the first delay if there is no stream.
    """

    __slots__ = (
        "_backoff",
        "_decoder",
        "_dispatcher",
        "_filter",
        "_has_ended",
        "_interval",
        "_job",
        "_lanes",
        "_poll_immediately",
        "_response",
        "_share",
        "_state",
        "_streams_left",
        "_with_logs",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        state: CallState,
        job: WatchedJob,
        *,
        with_logs: bool,
        interval: float | None,
        poll_immediately: bool,
    ) -> None:
        self._dispatcher = dispatcher
        self._state = state
        self._job = job
        self._with_logs = with_logs
        self._lanes = dispatcher.resources.lanes.get()
        self._share = Share(id(dispatcher.credentials), job.application)
        self._interval = interval
        self._poll_immediately = poll_immediately
        self._filter = StatusFilter(with_logs=with_logs, repeats=interval is not None)
        self._has_ended = False
        # Mocks of httpx know the requests of polling only.
        may_stream = dispatcher.resources.limits.max_streams > 0 and not httpx_is_mocked()
        self._streams_left = MAX_STREAM_BREAKS if may_stream and interval is None else 0
        self._backoff = Backoff(WAITING_FOR_STREAM if self._streams_left else POLLING)
        self._response: StreamedResponse | None = None
        self._decoder: SlicedDecoder[Event] | None = None

    async def statuses(self) -> AsyncGenerator[Status, None]:
        """Yield each new status of the job, up to and including `Completed`."""
        try:
            while (status := await self.next_status()) is not None:
                yield status
        finally:
            await self.aclose()

    async def next_status(self) -> Status | None:
        """Wait for the next new status of the job; return ``None`` after `Completed`."""
        while not self._has_ended:
            status = None
            if self._response is not None or (
                (self._acquire_slot() or await self._wait_before_poll())
                and await self._open_stream()
            ):
                status = await self._receive()
            if status is None:
                await self._close_stream()
                status = await self._poll()
            self._has_ended = isinstance(status, Completed)
            logs = status.logs if isinstance(status, InProgress | Completed) else ()
            size = len(logs) * LOG_LINE_SIZE
            new_status = await decode(partial(self._filter.new_status, status), size)
            if new_status is not None:
                self._state.observer.change_status(self._job.request_id, new_status)
                return new_status
        return None

    async def aclose(self) -> None:
        """Stop watching, and close the status stream."""
        self._has_ended = True
        self._streams_left = 0
        await self._close_stream()

    async def _poll(self) -> Status:
        await self._lanes.turns.wait()  # many polls may be due at once
        job = self._job
        operation = queue.status(
            job.status_url,
            application=job.application,
            request_id=job.request_id,
            with_logs=self._with_logs,
        )
        with use_call_state(self._state):
            status = await self._dispatcher.execute(operation)
        self._state.complete()
        return status

    def _acquire_slot(self) -> bool:
        return self._streams_left > 0 and self._lanes.streams.try_acquire(self._share)

    async def _open_stream(self) -> bool:
        """Open a stream in the slot that was acquired; return whether it succeeded."""
        release_slot = partial(self._lanes.streams.release, self._share)
        job = self._job
        operation = queue.status_stream(
            job.status_url,
            application=job.application,
            request_id=job.request_id,
            with_logs=self._with_logs,
        )
        try:
            with use_call_state(self._state):
                self._response = await self._dispatcher.stream(operation, release_slot=release_slot)
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
        if self._interval is not None:
            if not self._poll_immediately:
                await anyio.sleep(self._interval)
            self._poll_immediately = False
            return False
        if self._poll_immediately:
            self._poll_immediately = False
        elif await self._wait(self._next_delay()):
            return True
        delay = self._lanes.poll_rate.reserve(anyio.current_time(), self._share.tenant)
        return delay > 0 and await self._wait(delay)

    def _next_delay(self) -> float:
        if not self._streams_left:
            return self._backoff.next(random.random)
        waiting = self._lanes.streams.waiting(self._share)
        rate = self._dispatcher.resources.limits.polls_per_second
        return self._backoff.next(random.random, shared_interval(waiting, rate))

    def _wait(self, seconds: float) -> Awaitable[bool]:
        """Wait for a slot if streams are left; return whether one was acquired in this time."""
        if self._streams_left:
            return self._lanes.streams.acquire(self._share, seconds)
        return Waiter().wait(seconds)

    async def _receive(self) -> Status | None:
        """Receive the next status; ``None`` when the stream or its slot has to be released."""
        response = self._response
        assert response is not None  # noqa: S101 -- `_open_stream` has opened it
        status: Status | None = None
        if not self._share.is_requested:
            self._share.on_requested = response.interrupt
            try:
                status = await self._next_event(response)
            finally:
                self._share.on_requested = None
        if isinstance(status, Completed):
            timer = call_later(STREAM_DRAIN_TIMEOUT, response.interrupt)
            try:
                await self._next_event(response)
            finally:
                timer.cancel()
        return status

    async def _next_event(self, response: StreamedResponse) -> Status | None:
        """Receive the status of the next event; ``None`` at the end, or if the stream failed."""
        decoder = self._decoder
        assert decoder is not None  # noqa: S101 -- `_open_stream` has made it
        try:
            while True:
                for event in decoder.items:
                    return await decode(partial(read_status_event, event), len(event.data))
                if await decoder.advance():
                    continue
                chunk = await response.next_chunk()
                if chunk is None:
                    return None
                decoder.feed(chunk)
        except (ExchangeFailed, InvalidResponseError):
            return None

    async def _close_stream(self) -> None:
        response, self._response, self._decoder = self._response, None, None
        if response is None:
            return
        if not self._share.is_requested:
            self._streams_left -= 1
        if self._streams_left <= 0:
            self._disable_streaming()
        await response.aclose()

    def _disable_streaming(self) -> None:
        self._streams_left = 0
        self._backoff = Backoff(POLLING)
