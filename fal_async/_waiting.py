"""Waiting for a queue job: by its status stream while there is a place, else by polling.

The stream is never trusted as the end. When it cannot be opened, drops or goes silent, the wait
goes on by polling from where it stands, and moves back to a stream when it may.
"""

from __future__ import annotations

import random
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import orjson

from fal_async._protocol import operations
from fal_async._protocol.operations import Lane
from fal_async._protocol.polling import polling_pauses
from fal_async._protocol.replies import is_event_stream, read_status
from fal_async._protocol.sse import SSEDecoder
from fal_async._transport.exchange import Broken
from fal_async.errors import FalClientHTTPError, InvalidReplyError, TransportError
from fal_async.types import Completed

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        self._pauses = polling_pauses(random.random)
        self._look_at_once = look_at_once
        self._streams_left = MAX_STREAM_BREAKS if interval is None else 0
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
        if self._stream is None:
            await self._open_stream()
        if self._stream is not None:
            status = await self._stream.next()
            if isinstance(status, Completed):
                await self._stream.end()
            if status is not None:
                return status
            await self._leave_stream()
            self._look_at_once = True
        return await self._poll()

    async def aclose(self) -> None:
        """Stop watching."""
        self._streams_left = 0
        await self._leave_stream()

    async def _poll(self) -> Status:
        if self._look_at_once:
            self._look_at_once = False
        else:
            await anyio.sleep(self._interval or next(self._pauses))
        if self._interval is None:
            await anyio.sleep(self._gates.polls.delay(anyio.current_time()))
        return await self._performer.perform(self._status)

    async def _open_stream(self) -> None:
        if not self._streams_left or not self._gates.try_enter(Lane.WATCH):
            return
        try:
            reply = await self._performer.open(self._watch)
        except (FalClientHTTPError, TransportError, InvalidReplyError):
            self._streams_left = 0  # polling meets the same trouble, if it is one, and tells
        else:
            self._stream = _StatusStream(reply)
        finally:
            if self._stream is None:
                self._gates.leave(Lane.WATCH)
        if self._stream is not None and not self._stream.is_one:
            await self._leave_stream()
            self._streams_left = 0

    async def _leave_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        self._streams_left = max(0, self._streams_left - 1)
        self._gates.leave(Lane.WATCH)
        await stream.aclose()


class _StatusStream:
    """The statuses that an open reply carries."""

    def __init__(self, reply: OpenReply) -> None:
        self._reply = reply
        self._decoder = SSEDecoder()
        self._events: Iterator[Event] = iter(())
        self.is_one = is_event_stream(reply.headers)

    async def next(self) -> Status | None:
        """The next status; ``None`` when the stream has ended, broken or gone silent."""
        try:
            while True:
                for event in self._events:
                    return _decode(event)
                chunk = await self._reply.next_chunk()
                if chunk is None:
                    return None
                self._events = iter(self._decoder.feed(chunk))
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
        raw: Any = orjson.loads(event.data)
    except orjson.JSONDecodeError as error:
        raise InvalidReplyError(f"a status event is not JSON: {event.data[:80]!r}") from error
    if not isinstance(raw, dict):
        raise InvalidReplyError(f"a status event is not an object: {event.data[:80]!r}")
    return read_status(cast("dict[str, Any]", raw))
