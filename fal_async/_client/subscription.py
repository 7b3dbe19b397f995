"""`JobSubscription`: one job from its submission to its output, cancelled with its caller."""

from __future__ import annotations

import inspect
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio

from fal_async._dispatch.call_state import use_call_state
from fal_async.errors import ClientClosedError, FalClientError
from fal_async.types import Completed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from typing_extensions import TypeVar

    from fal_async._client.handle import AsyncRequestHandle
    from fal_async._client.result import Result
    from fal_async._dispatch.call_state import CallState
    from fal_async._dispatch.cancellation import PendingCancel
    from fal_async._dispatch.dispatcher import Dispatcher
    from fal_async.types import Status

    T = TypeVar("T", default=Result)

__all__ = ["JobSubscription"]


class JobSubscription:
    """A call that submits a job, waits for it and fetches its output.

    Args:
        dispatcher: Executes the requests.
        state: The state of the call.
        on_enqueue: Called with the job's id, or ``None``.
        on_queue_update: Called with each status, or ``None``.

    Attributes:
        handle: The job; ``None`` before it was submitted.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        state: CallState,
        on_enqueue: Callable[[str], Awaitable[None] | None] | None,
        on_queue_update: Callable[[Status], Awaitable[None] | None] | None,
    ) -> None:
        self.handle: AsyncRequestHandle | None = None
        self._dispatcher = dispatcher
        self._canceller = dispatcher.resources.cancellers.get()
        self._state = state
        self._on_enqueue = on_enqueue
        self._on_queue_update = on_queue_update
        self._in_callback = False
        self._pending_cancel: PendingCancel | None = None
        self._context = copy_context()
        self._scope = anyio.CancelScope()

    @property
    def request_id(self) -> str | None:
        """The job's id; ``None`` before the job was submitted."""
        return None if self.handle is None else self.handle.request_id

    async def run(
        self,
        submission: Coroutine[Any, Any, AsyncRequestHandle],
        *,
        with_logs: bool,
        interval: float | None,
        output: type[T] | None,
    ) -> T:
        """Submit the job, call the callbacks until it has completed, and fetch its output.

        Args:
            submission: Submits the job.
            with_logs: Whether statuses contain log lines.
            interval: Poll with this delay, in seconds; ``None`` uses the status stream.
            output: The type of the output; ``None`` for a `Result`.
        """
        self._canceller.add(self)
        try:
            with self._scope:
                self.handle = handle = await submission
                del submission  # the call may wait for long
                self._state.request_id = handle.request_id
                self._state.complete()
                await self._call(self._on_enqueue, handle.request_id)
                watcher = handle._watch(
                    self._dispatcher,
                    self._state,
                    with_logs=with_logs,
                    interval=interval,
                    poll_immediately=self._on_queue_update is not None,
                )
                try:
                    while (status := await watcher.next_status()) is not None:
                        self._state.last = status
                        await self._call(self._on_queue_update, status)
                finally:
                    await watcher.aclose()
                return await handle._fetch_result(self._state.last, output)
            # Raised within the block, so that the job is cancelled.
            raise ClientClosedError("the client was closed before the job had ended")  # noqa: TRY301 -- see above
        except GeneratorExit:  # a destroyed coroutine cannot await
            if self.handle is not None and not isinstance(self._state.last, Completed):
                self._canceller.cancel_detached(self.handle.request_id, self.handle.cancel)
            raise
        except BaseException as error:
            await self._end(error)
            raise
        finally:
            self._canceller.remove(self)

    async def _end(self, error: BaseException) -> None:
        """Cancel the job, unless the caller can still fetch its output."""
        # A caller that receives an error of this library can do so by the job's id, unless its
        # client is closed.
        is_abandoned = (
            self._in_callback
            or isinstance(error, ClientClosedError)
            or not isinstance(error, FalClientError)
        )
        has_ended = isinstance(self._state.last, Completed)
        if self.handle is not None and is_abandoned and not has_ended:
            self._state.uncancelled = (self.handle.request_id,)
            if await self._canceller.wait(self._cancel(self.handle)):
                self._state.uncancelled = ()
        if isinstance(error, ClientClosedError):
            error.request_id = error.request_id or self.request_id
            error.uncancelled = self._state.uncancelled
            self._state.describe(error)
            self._canceller.remove(self)  # the closer waits for it
            await self._canceller.wait_closed()

    def close(self) -> None:
        """End the call, because the client is closing. The output of a completed job is fetched."""
        if isinstance(self._state.last, Completed):
            return
        self._scope.cancel()
        if self.handle is not None:
            self._cancel(self.handle)

    async def _call(self, callback: Callable[[T], Awaitable[Any] | None] | None, value: T) -> None:
        if callback is None:
            return
        self._in_callback = True
        with use_call_state(None):  # calls of the callback are no part of this call
            outcome = callback(value)
            if inspect.isawaitable(outcome):
                await outcome
        self._in_callback = False

    def _cancel(self, handle: AsyncRequestHandle) -> PendingCancel:
        if self._pending_cancel is None:
            self._pending_cancel = self._canceller.cancel(
                handle.request_id, handle.cancel, context=self._context
            )
        return self._pending_cancel
