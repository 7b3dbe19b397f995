"""A task of an event loop that another thread waits for.

A `PortalTask` has one queue of events, through which the loop's thread passes items, callbacks and
the outcome to the waiting thread. One invariant keeps that thread from blocking forever: a task
that was started finishes with its result, its error or the end of the loop.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from inspect import isawaitable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar

import anyio

from fal_async.errors import ClientClosedError
from fal_async.sync._loop_thread import CANCEL_GRACE_PERIOD, WAKE_INTERVAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async.sync._loop_thread import EventLoopThread

__all__ = ["READ_AHEAD", "Item", "Outcome", "PortalTask", "run_in_caller_thread"]

#: Items that a task may produce ahead of its thread. The thread lets the task continue once it has
#: received half of them, which saves most of the wake-ups.
READ_AHEAD: Final = 16

P = ParamSpec("P")
T = TypeVar("T")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Item(Generic[ItemT]):
    """A value that a task produces before its end.

    Attributes:
        value: The value.
        is_received: Whether the user has received it.
    """

    __slots__ = ("is_received", "value")

    def __init__(self, value: ItemT) -> None:
        self.value: ItemT = value
        self.is_received: bool = False


class Outcome(Generic[ResultT]):
    """The outcome of a task or callback: a value, an error, or neither if it was cancelled.

    Attributes:
        value: The value, or ``None`` after an error.
        error: The error, or ``None`` if there was none or it was raised already.
        succeeded: Whether there is a value.
    """

    __slots__ = ("error", "succeeded", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value: ResultT = value
        self.error = error
        self.succeeded: bool = error is None

    def unwrap(self) -> ResultT:
        """Return the value, or raise the error without the frame that caught it."""
        error, self.error = self.error, None
        if error is None:
            return self.value
        try:
            trace = error.__traceback__
            raise error.with_traceback(trace and trace.tb_next)
        finally:
            del error  # its traceback refers to this frame


class _CallbackRequest(Generic[ResultT]):
    """A callback that the waiting thread runs for its task."""

    def __init__(self, callback: Callable[[], ResultT]) -> None:
        self._callback = callback
        self.outcome: Outcome[ResultT] = Outcome()
        self.finished = anyio.Event()

    def run(self) -> None:
        try:
            self.outcome = Outcome(self._callback())
        except StopIteration:  # which no coroutine can raise
            raise
        except Exception as error:  # noqa: BLE001 -- raised again by the task
            self.outcome = Outcome(error=error)


class PortalTask(Generic[ItemT, ResultT]):
    """Async work on an event loop thread, and the queue of its events for one waiting thread.

    Args:
        main: The work: a function that receives the task, with which it emits items.

    Attributes:
        outcome: The outcome, or ``None`` before the end. The waiting thread clears it, since
            objects that outlive the task, such as pooled connections, refer to the task.
    """

    def __init__(self, main: Callable[[PortalTask[ItemT, ResultT]], Awaitable[ResultT]]) -> None:
        self._main: Callable[[PortalTask[ItemT, ResultT]], Awaitable[ResultT]] | None = main
        self._events: SimpleQueue[Item[ItemT] | _CallbackRequest[Any] | Outcome[ResultT]] = (
            SimpleQueue()
        )
        self._thread: EventLoopThread | None = None
        self._scope: anyio.CancelScope | None = None
        self._drained: anyio.Event | None = None
        self._cancelled = False
        self._items: deque[Item[ItemT]] = deque()
        self._end_received = False
        self.outcome: Outcome[ResultT] | None = None

    # On the waiting thread

    @property
    def was_started(self) -> bool:
        """True if the task was started on a loop."""
        return self._thread is not None

    @property
    def running(self) -> bool:
        """True if the task was started in this process and the thread has not received its end."""
        thread = self._thread
        return thread is not None and not self._end_received and thread.in_this_process

    @property
    def is_cancelled(self) -> bool:
        """True if the waiting thread cancelled the task."""
        return self._cancelled

    def start(self, thread: EventLoopThread) -> None:
        thread.check_can_wait()
        self._thread = thread
        thread.start_task(self)

    def receive(self) -> Item[ItemT] | Outcome[ResultT]:
        """Wait for the next item or the outcome, and run callbacks in the meantime."""
        while self._items and self._items[0].is_received:
            self._items.popleft()
        while True:
            try:
                event = self._events.get(timeout=WAKE_INTERVAL)
            except Empty:
                continue
            if not isinstance(event, _CallbackRequest):
                break
            event.run()
            self.call_soon(event.finished.set)
        self._end_received = isinstance(event, Outcome)
        drained = self._drained
        if drained is not None and self._events.qsize() <= READ_AHEAD // 2:
            self._drained = None
            self.call_soon(drained.set)
        return event

    def pending_items(self) -> list[ItemT]:
        """Return the items that the task has emitted and the user has not received."""
        return [item.value for item in list(self._items) if not item.is_received]

    def clear_items(self) -> None:
        """Release the items, since objects that outlive the task refer to it."""
        self._items.clear()

    def wait_finished(self) -> Outcome[ResultT]:
        """Wait for the outcome, and ignore items."""
        while isinstance(event := self.receive(), Item):
            pass
        return event

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call a function on the loop, unless the loop has stopped."""
        if self._thread is not None:
            self._thread.call_soon(callback)

    def cancel_and_wait(self) -> Outcome[ResultT] | None:
        """Cancel the task if it runs, and wait for its cleanup during the grace period.

        Returns:
            The outcome, or ``None`` if the task was not started or has not finished.
        """
        if self.running and self._thread is not None and self.outcome is None:
            self.call_soon(partial(self._thread.cancel, self))
            # The garbage collector closes generators on the loop's thread too, which cannot wait.
            if not self._thread.is_current:
                self._wait_for_cleanup()
        self._end_received = self.outcome is not None
        return self.outcome

    def _wait_for_cleanup(self) -> None:
        deadline = monotonic() + CANCEL_GRACE_PERIOD
        try:
            while self.outcome is None and (left := deadline - monotonic()) > 0:
                with suppress(Empty):
                    self._events.get(timeout=min(left, WAKE_INTERVAL))
        except KeyboardInterrupt as interrupt:  # a second one ends the grace period
            raise interrupt from None

    # On the loop's thread

    async def run(self, scope: anyio.CancelScope) -> None:
        """Do the work in a cancel scope, and pass its outcome to the waiting thread."""
        _current.set(self)
        outcome: Outcome[ResultT] | None = None
        try:
            with scope as self._scope:
                if not self._cancelled and self._main is not None:
                    outcome = Outcome(await self._main(self))
        except anyio.get_cancelled_exc_class():
            pass
        except BaseException as error:  # noqa: BLE001 -- raised again on the waiting thread
            outcome = Outcome(error=error)
        self.finish(outcome)

    async def emit(self, value: ItemT) -> None:
        """Pass an item to the waiting thread. Wait while `READ_AHEAD` items are unreceived."""
        item = Item(value)
        self._items.append(item)  # an interrupt can come just after the item has left the queue
        self._events.put(item)
        if self._events.qsize() >= READ_AHEAD:
            self._drained = drained = anyio.Event()
            # Check again, now that the other thread can see `_drained`.
            if self._events.qsize() >= READ_AHEAD:
                await drained.wait()

    async def call_in_waiting_thread(self, callback: Callable[[], T]) -> T:
        """Run a callback on the waiting thread, and return its result."""
        request = _CallbackRequest(callback)
        self._events.put(request)
        await request.finished.wait()
        return request.outcome.unwrap()

    def cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def finish(self, outcome: Outcome[ResultT] | None, /) -> None:
        """Pass the outcome to the waiting thread, once; ``None`` means that it was cancelled."""
        if self.outcome is None:
            if outcome is None:
                error = ClientClosedError("the client was closed before the call was complete")
                outcome = Outcome(error=error)
            self.outcome = outcome  # an interrupt can come just after it has left the queue
            self._events.put(outcome)
        self._main = None
        if self._thread is not None:
            self._thread.remove(self)


_current: ContextVar[PortalTask[Any, Any]] = ContextVar("fal_portal_task")


def run_in_caller_thread(
    callback: Callable[P, Awaitable[None] | None] | None,
) -> Callable[P, Awaitable[None]] | None:
    """Make a callback run on the thread that waits for the current task.

    The callback may block and make blocking calls of its own, and Ctrl-C interrupts it. The
    coroutine of a coroutine function is awaited on the loop.
    """
    if not callable(callback):
        return callback  # None, or a value that the call rejects

    async def call(*args: P.args, **kwargs: P.kwargs) -> None:
        result = await _current.get().call_in_waiting_thread(partial(callback, *args, **kwargs))
        if isawaitable(result):
            await result

    return call
