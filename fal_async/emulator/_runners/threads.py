"""Daemon threads for blocking runners."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
_TaskQueue: TypeAlias = SimpleQueue[Callable[[], None] | None]

#: The maximum time to wait for all busy threads, in seconds.
_CLOSE_TIMEOUT = 0.5


class DaemonThreads:
    """A pool of as many daemon threads as there are concurrent calls.

    The threads are daemons, which executors do not offer: a runner that blocks forever cannot keep
    the process alive.
    """

    def __init__(self) -> None:
        self._idle: list[_TaskQueue] = []
        self._alive: set[threading.Thread] = set()
        self._closed = False

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Call a function in a thread, in the caller's context.

        Returns:
            A future of the running event loop.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def run() -> None:
            try:
                result = context.run(function)
            except BaseException as error:  # noqa: BLE001 -- raised again where it is awaited
                _set_threadsafe(loop, future, future.set_exception, as_exception(error))
            else:
                _set_threadsafe(loop, future, future.set_result, result)

        if self._idle:
            tasks = self._idle.pop()
        else:
            tasks = _TaskQueue()
            thread = threading.Thread(
                target=self._work, args=(tasks,), name="fal-runner", daemon=True
            )
            self._alive.add(thread)
            thread.start()
        tasks.put(run)
        return future

    def close(self) -> None:
        """End the idle threads, and wait a limited time for the busy ones."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        for thread in list(self._alive):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, tasks: _TaskQueue) -> None:
        while (task := tasks.get()) is not None:
            task()
            del task  # an idle thread must not keep its objects alive
            self._idle.append(tasks)
            if self._closed:
                break
        self._alive.discard(threading.current_thread())


def as_exception(error: BaseException) -> Exception:
    """Return an error that a future can hold, and that does not end an event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the runner raised {error!r}")
    wrapped.__cause__ = error
    return wrapped


def _set_threadsafe(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    set_value: Callable[[Any], None],
    value: object,
) -> None:
    def set_once() -> None:
        if not future.done():
            set_value(value)

    try:
        loop.call_soon_threadsafe(set_once)
    except RuntimeError:
        return  # the event loop is closed, so no task waits for the future
