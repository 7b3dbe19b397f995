"""A job that somebody waits for: it is cancelled when they leave before its end."""

from __future__ import annotations

import inspect
from contextlib import aclosing
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from fal_async._transport.call_state import call_state, use_call_state
from fal_async.errors import ClientClosedError, FalClientError
from fal_async.types import Completed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async._handle import AsyncRequestHandle
    from fal_async._transport.cancels import Cancel, Cancels
    from fal_async.types import Status

__all__ = ["Subscription"]

T = TypeVar("T")


class Subscription:
    """One job, and who wants to hear of it.

    Args:
        cancels: Cancels jobs for the client.
        on_enqueue: Called with the job's id, or ``None``.
        on_queue_update: Called with each status, or ``None``.

    Attributes:
        handle: The job; ``None`` until it has been submitted.
        last: The last status that was seen, or ``None``.
        uncancelled: The ids of jobs that were left and could not be cancelled.
    """

    def __init__(
        self,
        cancels: Cancels,
        on_enqueue: Callable[[str], Awaitable[None] | None] | None,
        on_queue_update: Callable[[Status], Awaitable[None] | None] | None,
    ) -> None:
        self.handle: AsyncRequestHandle | None = None
        self.last: Status | None = None
        self.uncancelled: tuple[str, ...] = ()
        self._cancels = cancels
        self._on_enqueue = on_enqueue
        self._on_queue_update = on_queue_update
        self._in_callback = False
        self._cancel: Cancel | None = None
        self._context = copy_context()
        self._scope = anyio.CancelScope()

    @property
    def request_id(self) -> str | None:
        """The job's id; ``None`` until it has been submitted."""
        return None if self.handle is None else self.handle.request_id

    async def run(
        self,
        submit: Callable[[], Awaitable[AsyncRequestHandle]],
        *,
        with_logs: bool,
        interval: float | None,
        output: type[T] | None,
    ) -> T:
        """Submit the job, tell of each change, up to the end, and fetch the output."""
        try:
            return await self._run(submit, with_logs=with_logs, interval=interval, output=output)
        except ClientClosedError as error:
            error.request_id = error.request_id or self.request_id
            error.uncancelled = self.uncancelled
            call_state().describe(error)
            await self._cancels.closed()
            raise

    def close(self) -> None:
        """End the wait, since the client is closing; an output that is there is still fetched."""
        if isinstance(self.last, Completed):
            return
        self._scope.cancel()
        if self.handle is not None:
            self._begin_cancel(self.handle)

    async def _run(
        self,
        submit: Callable[[], Awaitable[AsyncRequestHandle]],
        *,
        with_logs: bool,
        interval: float | None,
        output: type[T] | None,
    ) -> T:
        self._cancels.join(self)
        try:
            return await self._submit_and_follow(
                submit, with_logs=with_logs, interval=interval, output=output
            )
        except GeneratorExit:  # nothing can be awaited any more
            if self.handle is not None and not isinstance(self.last, Completed):
                self._cancels.lose(self.handle.request_id, self.handle.cancel)
            raise
        except BaseException as error:
            if self.handle is not None and self._leaves_job(error):
                self.uncancelled = (self.handle.request_id,)
                if await self._cancels.wait(self._begin_cancel(self.handle)):
                    self.uncancelled = ()
            raise
        finally:
            self._cancels.leave(self)

    async def _submit_and_follow(
        self,
        submit: Callable[[], Awaitable[AsyncRequestHandle]],
        *,
        with_logs: bool,
        interval: float | None,
        output: type[T] | None,
    ) -> T:
        with self._scope:
            self.handle = handle = await submit()
            await self._tell(self._on_enqueue, handle.request_id)
            events = handle.follow(
                with_logs=with_logs,
                interval=interval,
                look_at_once=self._on_queue_update is not None,
            )
            async with aclosing(events):
                async for self.last in events:
                    await self._tell(self._on_queue_update, self.last)
            return await handle.fetch(self.last, output)
        raise ClientClosedError("the client was closed before the job had ended")

    async def _tell(self, callback: Callable[[T], Awaitable[Any] | None] | None, news: T) -> None:
        if callback is None:
            return
        self._in_callback = True
        with use_call_state(None):  # what the callback calls is no part of this call
            outcome = callback(news)
            if inspect.isawaitable(outcome):
                await outcome
        self._in_callback = False

    def _leaves_job(self, error: BaseException) -> bool:
        """Whether an error means that nobody waits for the job any more, although it may run.

        An error of ours is no leaving: whoever gets it may still collect the job by its id. But
        there is no client to collect it with when it was closed.
        """
        if isinstance(self.last, Completed):
            return False
        return (
            self._in_callback
            or isinstance(error, ClientClosedError)
            or not isinstance(error, FalClientError)
        )

    def _begin_cancel(self, handle: AsyncRequestHandle) -> Cancel:
        if self._cancel is None:
            self._cancel = self._cancels.add(
                handle.request_id, handle.cancel, context=self._context
            )
        return self._cancel
