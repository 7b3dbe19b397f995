"""A thread that runs an event loop for tasks of other threads.

Tasks are scheduled with the native event loop that anyio's token names. The portal of anyio starts
a task with one round trip between the threads, and waits for its result with a second one.
"""

from __future__ import annotations

import math
import os
import threading
from contextvars import Context, copy_context
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import anyio
from anyio.lowlevel import current_token

from fal_async.errors import ClientClosedError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = ["CANCEL_GRACE_PERIOD", "WAKE_INTERVAL", "EventLoopThread"]

#: Seconds that a cancelled task has for its cleanup.
CANCEL_GRACE_PERIOD: Final = 5.0
#: Seconds between the wake-ups of a waiting thread. Ctrl-C does not wake a thread on Windows, and
#: on other systems not if the signal arrives just before the thread begins to wait.
WAKE_INTERVAL: Final = 0.2

import_module("concurrent.futures.thread")  # uvloop needs it, and it cannot load at exit


class _NativeLoop(Protocol):
    """The part of asyncio's event loops that the thread uses."""

    def call_soon_threadsafe(
        self, callback: Callable[..., object], /, *args: object, context: Context | None = None
    ) -> object: ...

    def create_task(
        self, work: Coroutine[Any, Any, None], /, *, context: Context
    ) -> Awaitable[None]: ...


class _Task(Protocol):
    """A task of another thread. The loop's thread calls all methods."""

    def run(self, scope: anyio.CancelScope, /) -> Coroutine[Any, Any, None]: ...

    def cancel(self) -> None: ...

    def finish(self, outcome: None, /) -> None:
        """Finish without a result, unless the task has finished."""


class EventLoopThread:
    """A daemon thread with an event loop: uvloop where it is installed.

    Args:
        on_stop: Awaited on the loop before it stops. ``None`` awaits nothing.
        stop_timeout: Returns the time limit of `on_stop` in seconds; called on the loop.
        context: The context of the loop. All tasks see its variables.
    """

    def __init__(
        self,
        on_stop: Callable[[], Awaitable[None]] | None,
        stop_timeout: Callable[[], float] = lambda: CANCEL_GRACE_PERIOD,
        context: Context | None = None,
    ) -> None:
        self._process = os.getpid()
        self._on_stop = on_stop
        self._stop_timeout = stop_timeout
        # Not that of the starting thread, which may run another event loop.
        self._context = Context() if context is None else context
        self._stop_deadline = -math.inf
        self._thread = threading.Thread(target=self._run, name="fal-portal", daemon=True)
        self._ready = threading.Event()
        self._loop: _NativeLoop | None = None
        self._tasks: dict[_Task, Awaitable[None] | None] = {}
        self._failure: BaseException | None = None
        self._stopping = False

    @property
    def in_this_process(self) -> bool:
        """True if the thread belongs to this process, rather than to the parent of a fork."""
        return self._process == os.getpid()

    @property
    def is_current(self) -> bool:
        """True if the caller runs on this thread."""
        return self._thread is threading.current_thread()

    def start(self) -> None:
        """Start the thread and wait until its loop runs, or raise the error that prevents it."""
        try:
            self._thread.start()
            self._ready.wait()
        except RuntimeError as error:  # Python 3.12 starts no thread while the interpreter exits
            raise ClientClosedError(f"cannot start an event loop: {error}") from error
        except BaseException:  # interrupted: the caller has no reference to the loop
            self._on_stop, self._stopping = None, True
            self.call_soon(self._stop)
            raise
        if self._failure is not None:
            raise self._failure

    def check_can_wait(self) -> None:
        """Raise an error if the caller cannot wait for tasks of this loop.

        Raises:
            InvalidRequestError: The caller runs on the loop's own thread.
            ClientClosedError: The loop was stopped.
        """
        if self.is_current:
            raise InvalidRequestError(
                "cannot make a blocking call from async code on the client's own event loop, "
                "because it would block that loop forever; await the async client there"
            )
        if self._stopping or self._loop is None:
            raise ClientClosedError("the client is closed")

    def start_task(self, task: _Task) -> None:
        """Start a task. It always finishes, at the latest with the loop."""
        self._tasks[task] = None
        context = copy_context()
        if not self.call_soon(self._spawn, task, context, context=context):
            task.finish(None)

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> bool:
        """Call a function on the loop. Return ``False`` if the loop has stopped."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(callback, *args, context=context)
        except RuntimeError:
            return False
        return True

    def stop(self) -> None:
        """Cancel the tasks and stop the loop. Wait for its end, unless the loop itself calls."""
        self._stopping = True
        self.call_soon(self._stop)
        if not self.is_current:
            self._thread.join(2 * CANCEL_GRACE_PERIOD)
            while self._thread.is_alive() and monotonic() < self._stop_deadline:
                self._thread.join(WAKE_INTERVAL)

    # On the loop's thread

    def _spawn(self, task: _Task, context: Context) -> None:
        if self._stopping:
            task.cancel()
        # The context of the caller may belong to another event loop.
        for variable, value in self._own_variables:
            variable.set(value)
        if self._loop is not None:
            work = task.run(self._scope_class())
            self._tasks[task] = self._loop.create_task(work, context=context)

    def cancel(self, task: _Task) -> None:
        """Cancel a task, or finish it if an interrupt prevented its start."""
        if self._tasks.get(task) is None:
            task.finish(None)
        else:
            task.cancel()

    def remove(self, task: _Task) -> None:
        self._tasks.pop(task, None)
        if self._stopping and not self._tasks:
            self.call_soon(self._idle.set)

    def _run(self) -> None:
        options = {"use_uvloop": find_spec("uvloop") is not None}
        try:
            self._context.run(
                partial(anyio.run, self._serve, backend="asyncio", backend_options=options)
            )
        except BaseException as error:
            if self._ready.is_set():
                raise
            self._failure = error
        finally:
            self._ready.set()
            for task in list(self._tasks):
                task.finish(None)

    async def _serve(self) -> None:
        self._idle = anyio.Event()
        self._scope_class = type(anyio.CancelScope())  # which anyio looks up for each scope
        self._stopped = anyio.Event()
        self._own_variables = list(copy_context().items())
        self._loop = cast("_NativeLoop", current_token().native_token)
        self._ready.set()
        if self._stopping:
            return
        await self._stopped.wait()
        if self._tasks:
            with anyio.move_on_after(CANCEL_GRACE_PERIOD):
                await self._idle.wait()
        if self._on_stop is not None:
            timeout = self._stop_timeout()
            self._stop_deadline = monotonic() + timeout + CANCEL_GRACE_PERIOD
            with anyio.move_on_after(timeout):
                await self._on_stop()

    def _stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._stopped.set()
