"""Async work that an event loop does for a thread which waits for it.

An `PortalTask` is one task on the loop, and one mailbox through which the loop's thread tells the
other
thread what happens. Everything rests on one rule: *an errand that was started is ended*, by its
result, its error or the end of the loop, so a thread that waits always wakes up.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from inspect import isawaitable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, cast

import anyio

from fal_async.errors import ClientClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fal_async.sync._loop_thread import EventLoopThread

__all__ = [
    "CANCEL_GRACE_PERIOD",
    "LOOK_UP",
    "READ_AHEAD",
    "Item",
    "Outcome",
    "PortalTask",
    "run_in_caller_thread",
]

#: Seconds that an abandoned errand is given to clean up.
CANCEL_GRACE_PERIOD: Final = 5.0
#: Items that an errand may be ahead of its thread; waking it up is paid for once in half as many.
READ_AHEAD: Final = 16
#: Seconds after which a waiting thread looks up: Ctrl-C does not wake it on Windows, and elsewhere
#: not if the signal comes just before the thread begins to wait.
LOOK_UP: Final = 0.2

P = ParamSpec("P")
T = TypeVar("T")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Item(Generic[ItemT]):
    """A value that an errand hands over on its way.

    Attributes:
        value: The value.
        is_received: Whether the user has it.
    """

    __slots__ = ("is_received", "value")

    def __init__(self, value: ItemT) -> None:
        self.value = value
        self.is_received = False


class Outcome(Generic[ResultT]):
    """How an errand, or a callback, ended; without a value and an error it was cancelled.

    Attributes:
        value: What it came to; ``None`` after an error.
        error: The error that it raised and nobody has received, or ``None``.
        succeeded: Whether it came to a value.
    """

    __slots__ = ("error", "succeeded", "value")

    def __init__(self, value: ResultT | None = None, error: BaseException | None = None) -> None:
        self.value = cast("ResultT", value)
        self.error = error
        self.succeeded = error is None

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
    """A callback that the waiting thread is asked to run for its errand."""

    def __init__(self, callback: Callable[[], ResultT]) -> None:
        self._callback = callback
        self.outcome: Outcome[ResultT] = Outcome()
        self.answered = anyio.Event()

    def run(self) -> None:
        try:
            self.outcome = Outcome(self._callback())
        except StopIteration:  # which no coroutine can raise
            raise
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
            self.outcome = Outcome(error=error)


class PortalTask(Generic[ItemT, ResultT]):
    """Async work on a loop thread, for one other thread that waits for it.

    Args:
        main: The work; it is given the errand, to hand over items.

    Attributes:
        outcome: How it ended; ``None`` before that. It is for the waiting thread to forget: what
            was started for an errand, such as a connection that is kept, refers to it.
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
        self._ended = False
        self.outcome: Outcome[ResultT] | None = None

    # On the waiting thread

    @property
    def was_started(self) -> bool:
        """Whether it was handed to a loop."""
        return self._thread is not None

    @property
    def running(self) -> bool:
        """Whether it was started, in this process, and its end has not been received."""
        return self._thread is not None and not self._ended and self._thread.in_this_process

    @property
    def is_abandoned(self) -> bool:
        """Whether the waiting thread has gone."""
        return self._cancelled

    def start(self, thread: EventLoopThread) -> None:
        thread.check()
        self._thread = thread
        thread.start_task(self)

    def receive(self) -> Item[ItemT] | Outcome[ResultT]:
        """Wait for the next item, or for the end; run callbacks meanwhile."""
        while self._items and self._items[0].is_received:
            self._items.popleft()
        while isinstance(news := _take(self._events), _CallbackRequest):
            news.run()
            self.call_soon(news.answered.set)
        self._ended = isinstance(news, Outcome)
        room = self._drained
        if room is not None and self._events.qsize() <= READ_AHEAD // 2:
            self._drained = None
            self.call_soon(room.set)
        return news

    def unreceived(self) -> list[ItemT]:
        """Return the items that have arrived, and that the user does not have."""
        return [item.value for item in list(self._items) if not item.is_received]

    def forget_items(self) -> None:
        """Forget the items, as what was started for the errand refers to it."""
        self._items.clear()

    def wait_finished(self) -> Outcome[ResultT]:
        """Wait for the end, passing over items."""
        while isinstance(news := self.receive(), Item):
            pass
        return news

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call a function on the loop, if there still is one."""
        if self._thread is not None:
            self._thread.soon(callback)

    def cancel_and_wait(self) -> Outcome[ResultT] | None:
        """Cancel the work, unless it has ended, and give it a moment to clean up.

        Returns:
            How it ended; ``None`` if it was not started, or has not ended yet.
        """
        if self.running and self._thread is not None and self.outcome is None:
            self.call_soon(partial(self._thread.cancel, self))
            if not self._thread.is_current:  # where the garbage collector closes generators
                self._wait_for_cleanup()
        self._ended = self.outcome is not None
        return self.outcome

    def _wait_for_cleanup(self) -> None:
        deadline = monotonic() + CANCEL_GRACE_PERIOD
        try:
            while self.outcome is None and (left := deadline - monotonic()) > 0:
                with suppress(Empty):
                    self._events.get(timeout=min(left, LOOK_UP))
        except KeyboardInterrupt as interrupt:  # a second one: no more waiting
            raise interrupt from None

    # On the loop's thread

    async def run(self) -> None:
        """Do the work, and tell the waiting thread how it ended."""
        _current.set(self)
        outcome: Outcome[ResultT] | None = None
        try:
            with anyio.CancelScope() as self._scope:
                if not self._cancelled and self._main is not None:
                    outcome = Outcome(await self._main(self))
        except anyio.get_cancelled_exc_class():
            pass
        except BaseException as error:  # noqa: BLE001 -- raised again on the waiting thread
            outcome = Outcome(error=error)
        self.end(outcome)

    async def emit(self, item: ItemT) -> None:
        """Hand an item over; wait while `READ_AHEAD` of them have not been taken."""
        handed_over = Item(item)
        self._items.append(handed_over)  # an interrupt can come just behind the mailbox
        self._events.put(handed_over)
        if self._events.qsize() >= READ_AHEAD:
            self._drained = room = anyio.Event()
            if (
                self._events.qsize() >= READ_AHEAD
            ):  # still, now that the other thread can see `_drained`
                await room.wait()

    async def call_in_waiting_thread(self, callback: Callable[[], T]) -> T:
        """Have the waiting thread run a callback."""
        question = _CallbackRequest(callback)
        self._events.put(question)
        await question.answered.wait()
        return question.outcome.unwrap()

    def cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def end(self, outcome: Outcome[ResultT] | None) -> None:
        """Tell the waiting thread; ``None`` means that the work was cancelled."""
        # Kept as well, since an interrupt can come just behind the mailbox.
        if self.outcome is None:
            self.outcome = outcome or Outcome(error=_closed())
            self._events.put(self.outcome)
        self._main = None
        if self._thread is not None:
            self._thread.remove(self)


def _closed() -> ClientClosedError:
    return ClientClosedError("the client was closed before the call had ended")


def _take(mail: SimpleQueue[T]) -> T:
    while True:
        with suppress(Empty):
            return mail.get(timeout=LOOK_UP)


_current: ContextVar[PortalTask[Any, Any]] = ContextVar("fal_errand")


def run_in_caller_thread(
    callback: Callable[P, Awaitable[None] | None] | None,
) -> Callable[P, Awaitable[None]] | None:
    """Let a callback of async code run on the thread that waits for that code.

    So it may block and make blocking calls of its own, and Ctrl-C reaches it. What a coroutine
    function returns is awaited on the loop.
    """
    if not callable(callback):
        return callback  # none, or what the call will refuse

    async def relayed(*args: P.args, **kwargs: P.kwargs) -> None:
        waiting = await _current.get().call_in_waiting_thread(partial(callback, *args, **kwargs))
        if isawaitable(waiting):
            await waiting

    return relayed
