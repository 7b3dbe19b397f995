"""Waiting for a queue job: by its status stream while there is a place, else by polling.

The stream is never trusted as the end. When it cannot be opened, drops or goes silent, the wait
goes on by polling from where it stands, and moves back to a stream when it may. Where all places
are taken, it stands in line for one, and asks now and then meanwhile.
"""

from __future__ import annotations

import random
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from fal_async._protocol import operations
from fal_async._protocol.bodies import decode_json
from fal_async._protocol.operations import Lane
from fal_async._protocol.polling import ALONE, IN_LINE, LINE_RATE, polling_pauses
from fal_async._protocol.replies import is_event_stream, read_status
from fal_async._protocol.sse import SSEDecoder
from fal_async._transport.exchange import Broken
from fal_async._transport.mocks import httpx_is_mocked
from fal_async._transport.threads import decode
from fal_async._transport.time_slices import SlicedDecoder
from fal_async.errors import FalClientHTTPError, InvalidReplyError, TransportError
from fal_async.types import Completed

if TYPE_CHECKING:
    from fal_async._protocol.operations import Operation
    from fal_async._protocol.sse import Event
    from fal_async._transport.exchange import OpenReply
    from fal_async._transport.gates import Gates
    from fal_async._transport.perform import Performer
    from fal_async.types import Status

__all__ = ["JobWatch"]

#: How often one wait opens a stream anew after a stream that broke.
MAX_STREAM_BREAKS: Final = 3
#: How long the end of a stream is waited for after COMPLETED, in seconds, to keep its connection.
STREAM_END: Final = 0.05


class JobWatch:
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
        performer: Performer,
        *,
        status_url: str,
        application: str,
        request_id: str,
        with_logs: bool,
        interval: float | None,
        look_at_once: bool,
    ) -> None:
        self._performer = performer
        self._gates: Gates = performer.line.gates.get()
        self._job = status_url, application, request_id
        self._with_logs = with_logs
        self._interval = interval
        self._look_at_once = look_at_once
        may_stream = interval is None and performer.line.limits.max_streams > 0
        may_stream = may_stream and not httpx_is_mocked()  # mocks know the requests of polling
        self._streams_left = MAX_STREAM_BREAKS if may_stream else 0
        self._pauses = polling_pauses(random.random, IN_LINE if may_stream else ALONE)
        self._stream: _StatusStream | None = None

    @cached_property
    def _status(self) -> Operation[Status]:
        url, application, request_id = self._job
        return operations.status(
            url, application=application, request_id=request_id, with_logs=self._with_logs
        )

    @cached_property
    def _watch(self) -> Operation[None]:
        url, application, request_id = self._job
        return operations.watch(
            url, application=application, request_id=request_id, with_logs=self._with_logs
        )

    async def next(self) -> Status:
        """The next status, whether or not it differs from the one before."""
        if self._stream is None and self._find_place():
            await self._open_stream()
        if self._stream is None and await self._pause():
            await self._open_stream()
        if self._stream is not None:
            status = await self._stream.next()
            if isinstance(status, Completed):
                await self._stream.end()
            if status is not None:
                return status
            await self._leave_stream()
        return await self._performer.perform(self._status)

    async def aclose(self) -> None:
        """Stop watching."""
        self._streams_left = 0
        await self._leave_stream()

    def _find_place(self) -> bool:
        return self._streams_left > 0 and self._gates.try_enter(Lane.WATCH)

    async def _pause(self) -> bool:
        """Wait until it is time to ask; true when a place came free before that."""
        if self._look_at_once:
            self._look_at_once = False
        elif self._interval is not None:
            await anyio.sleep(self._interval)
        elif await self._stand_in_line(self._next_pause()):
            return True
        if self._interval is not None:
            return False
        return await self._stand_in_line(self._gates.polls.delay(anyio.current_time()))

    def _next_pause(self) -> float:
        pause = next(self._pauses)
        if not self._streams_left:
            return pause
        return max(pause, self._gates.waiting(Lane.WATCH) / LINE_RATE)

    async def _stand_in_line(self, seconds: float) -> bool:
        """Wait for a place for so long; true when there is one."""
        if not self._streams_left:
            await anyio.sleep(seconds)
        elif seconds:
            with anyio.move_on_after(seconds):
                await self._gates.enter(Lane.WATCH)
                return True
        return False

    async def _open_stream(self) -> None:
        """Open a stream, for which there is a place."""
        try:
            reply = await self._performer.open(self._watch)
        except (FalClientHTTPError, TransportError, InvalidReplyError):
            self._stream_no_more()  # polling meets the same trouble, if it is one, and tells
        else:
            self._stream = _StatusStream(reply)
        finally:
            if self._stream is None:
                self._gates.leave(Lane.WATCH)
        if self._stream is not None and not self._stream.is_one:
            await self._leave_stream()
            self._stream_no_more()

    async def _leave_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        self._streams_left -= 1
        if self._streams_left <= 0:
            self._stream_no_more()
        self._gates.leave(Lane.WATCH)
        await stream.aclose()

    def _stream_no_more(self) -> None:
        self._streams_left = 0
        self._pauses = polling_pauses(random.random, ALONE)


class _StatusStream:
    """The statuses that an open reply carries."""

    def __init__(self, reply: OpenReply) -> None:
        self._reply = reply
        self._decoder = SlicedDecoder(SSEDecoder().feed)
        self.is_one = is_event_stream(reply.headers)

    async def next(self) -> Status | None:
        """The next status; ``None`` when the stream has ended, broken or gone silent."""
        try:
            while True:
                for event in self._decoder.items:
                    return await decode(partial(_decode, event), len(event.data))
                if await self._decoder.advance():
                    continue
                chunk = await self._reply.next_chunk()
                if chunk is None:
                    return None
                self._decoder.feed(chunk)
        except (Broken, InvalidReplyError):
            return None

    async def end(self) -> None:
        """Read up to the end if it comes soon, so that the connection can be used again."""
        with anyio.move_on_after(STREAM_END):
            await self.next()

    async def aclose(self) -> None:
        await self._reply.aclose()


def _decode(event: Event) -> Status:
    try:
        raw: Any = decode_json(event.data)
    except ValueError as error:
        raise InvalidReplyError(f"a status event is not JSON: {event.data[:80]!r}") from error
    if not isinstance(raw, dict):
        raise InvalidReplyError(f"a status event is not an object: {event.data[:80]!r}")
    return read_status(cast("dict[str, Any]", raw))
