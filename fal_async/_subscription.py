"""A job that somebody waits for: it is cancelled when they leave before its end."""

from __future__ import annotations

import inspect
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from fal_async._transport.call_state import use_call_state
from fal_async._transport.tasks import bounded_shield
from fal_async.errors import FalClientError
from fal_async.types import Completed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async._handle import AsyncRequestHandle
    from fal_async.types import Status

__all__ = ["Subscription", "cancel_quietly"]

T = TypeVar("T")
_log = logging.getLogger("fal_async")


class Subscription:
    """One job, and who wants to hear of it.

    Attributes:
        handle: The job.
        last: The last status that was seen, or ``None``.
    """

    def __init__(
        self,
        handle: AsyncRequestHandle,
        on_enqueue: Callable[[str], Awaitable[None] | None] | None,
        on_queue_update: Callable[[Status], Awaitable[None] | None] | None,
    ) -> None:
        self.handle = handle
        self.last: Status | None = None
        self._on_enqueue = on_enqueue
        self._on_queue_update = on_queue_update
        self._in_callback = False

    async def follow(self, *, with_logs: bool, interval: float | None, output: type[T] | None) -> T:
        """Tell of each change, up to the end, and fetch the output."""
        try:
            await self._tell(self._on_enqueue, self.handle.request_id)
            events = self.handle.follow(
                with_logs=with_logs,
                interval=interval,
                look_at_once=self._on_queue_update is not None,
            )
            async with aclosing(events):
                async for self.last in events:
                    await self._tell(self._on_queue_update, self.last)
            return await self.handle.fetch(self.last, output)
        except BaseException as error:
            # An error of ours is no leaving: whoever gets it may still collect the job by its id.
            if self._in_callback or not isinstance(error, FalClientError):
                await self._abandon()
            raise

    async def _tell(self, callback: Callable[[T], Awaitable[Any] | None] | None, news: T) -> None:
        if callback is None:
            return
        self._in_callback = True
        with use_call_state(None):  # what the callback calls is no part of this call
            outcome = callback(news)
            if inspect.isawaitable(outcome):
                await outcome
        self._in_callback = False

    async def _abandon(self) -> None:
        if not isinstance(self.last, Completed):
            await cancel_quietly(self.handle)


async def cancel_quietly(handle: AsyncRequestHandle) -> None:
    """Cancel a job that nobody waits for any more, whatever becomes of the caller meanwhile."""
    with use_call_state(None), bounded_shield() as scope:
        try:
            await handle.cancel()
        except FalClientError as error:
            _log.warning("the job %s could not be cancelled: %s", handle.request_id, error)
    if scope.cancelled_caught:
        _log.warning("the job %s could not be cancelled in time", handle.request_id)
