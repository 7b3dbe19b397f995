"""Threads for runners that are plain functions."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_Inbox: TypeAlias = "SimpleQueue[Callable[[], None] | None]"

#: How long closing waits for all threads that are still busy, in seconds.
_GRACE = 0.5


class DaemonThreads:
    """As many daemon threads as there are calls at once; idle ones are used again.

    Daemons, and none of an executor's, so that a runner that hangs cannot keep the process alive.
    """

    def __init__(self) -> None:
        self._idle: list[_Inbox] = []
        self._alive: set[threading.Thread] = set()
        self._closed = False

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run the function in a thread, in the caller's context, for the running loop to await."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        inbox = self._idle.pop() if self._idle else self._spawn()
        context = contextvars.copy_context()
        inbox.put(lambda: _settle(loop, future, context, function))
        return future

    def close(self) -> None:
        """End the idle threads, and wait a moment for those that are busy."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)
        deadline = time.monotonic() + _GRACE
        for thread in list(self._alive):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _spawn(self) -> _Inbox:
        inbox: _Inbox = SimpleQueue()
        thread = threading.Thread(target=self._work, args=(inbox,), name="fal-runner", daemon=True)
        self._alive.add(thread)
        thread.start()
        return inbox

    def _work(self, inbox: _Inbox) -> None:
        while (task := inbox.get()) is not None:
            task()
            del task  # whatever it refers to must not live on in an idle thread
            self._idle.append(inbox)
            if self._closed:
                break
        self._alive.discard(threading.current_thread())


def _settle(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[T],
    context: contextvars.Context,
    function: Callable[[], T],
) -> None:
    try:
        result = context.run(function)
    except BaseException as error:  # noqa: BLE001 -- raised again on the waiting thread
        _report(loop, future, future.set_exception, as_exception(error))
    else:
        _report(loop, future, future.set_result, result)


def as_exception(error: BaseException) -> Exception:
    """The error as one that a future can hold, and that no event loop takes for its own end."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    as_exception = RuntimeError(f"the runner raised {error!r}")
    as_exception.__cause__ = error
    return as_exception


def _report(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    settle: Callable[[Any], None],
    value: object,
) -> None:
    def report() -> None:
        if not future.done():
            settle(value)

    try:
        loop.call_soon_threadsafe(report)
    except RuntimeError:
        return  # the loop has been closed, so nobody waits any more
