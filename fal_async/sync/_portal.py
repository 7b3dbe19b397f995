"""Blocking calls into async code on an event loop thread.

- `Portal.call` runs a coroutine function and waits for its result.
- `Portal.iterate` runs an async iterator in one task, from start to close, some items ahead.
- `Portal.enter` runs an async context manager in one task, which waits while the body runs.

A thread that stops waiting (Ctrl-C, ``break``, an error in a ``with`` block) cancels its task. The
task has `CANCEL_GRACE_PERIOD` seconds for its cleanup, such as cancelling the job on the platform.

An outcome that arrives at the moment of the interrupt is not lost: it becomes the attribute
``outcome`` of the exception, or the object of the call keeps it for the next call. A submitted job
is cancelled, as it is whenever a `submit` is interrupted. The ``outcome`` of an iterator is a list
of the items that had arrived and were not received.
"""

from __future__ import annotations

import os
import weakref
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing
from contextvars import Context, ContextVar
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

import anyio

from fal_async._net.tasks import abandoned_result_handler
from fal_async.errors import ClientClosedError, FalClientError, InvalidRequestError
from fal_async.sync._loop_thread import CANCEL_GRACE_PERIOD, EventLoopThread
from fal_async.sync._task import Item, PortalTask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
    from types import TracebackType

    from fal_async.sync._task import Outcome

__all__ = ["Portal"]

P = ParamSpec("P")
T = TypeVar("T")
WrapperT = TypeVar("WrapperT")

_current: ContextVar[weakref.ref[Portal] | None] = ContextVar("fal_portal", default=None)


class Portal:
    """Entry for blocking code into an event loop thread.

    The first call starts the thread. A forked process starts a thread and a loop of its own. The
    loop stops on `close`, with the last reference to the portal, or when the interpreter exits.

    Args:
        on_close: Awaited on the loop before it stops. ``None`` awaits nothing.
        close_timeout: Returns the time limit of `on_close` in seconds; called on the loop.
    """

    def __init__(
        self,
        on_close: Callable[[], Awaitable[None]] | None = None,
        close_timeout: Callable[[], float] = lambda: CANCEL_GRACE_PERIOD,
    ) -> None:
        self._on_close = on_close
        self._close_timeout = close_timeout
        self._threads: dict[int, EventLoopThread] = {}
        self._locks: dict[int, Lock] = {}
        self._stop = weakref.finalize(self, _stop, self._threads)

    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function on the loop, and return its result or raise its error."""
        return self._run(_Call(self, _unchanged, partial(function, *args, **kwargs)))

    def call_and_wrap(
        self,
        wrap: Callable[[Portal, T], WrapperT],
        function: Callable[P, Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> WrapperT:
        """Run a coroutine function on the loop, wrap its result there, and return the wrapper."""
        return self._run(_Call(self, wrap, partial(function, *args, **kwargs)))

    def _run(self, call: _Call[T, WrapperT]) -> WrapperT:
        """Wait for a call.

        Callers may only return the value. Python runs signal handlers at function calls, and at the
        return of a call with ``*args``, so a plain ``return`` cannot be interrupted.
        """
        task: PortalTask[Any, WrapperT] = PortalTask(call.work)
        try:
            self.start(task)
            outcome = task.wait_finished()
        except BaseException as interrupt:
            late = task.cancel_and_wait()
            if late is not None:
                call.recover(late, interrupt)
            task.outcome = None
            raise
        task.outcome = None
        if outcome.succeeded:
            return outcome.value
        return outcome.unwrap()

    def iterate(
        self, function: Callable[P, AsyncIterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[T, None, None]:
        """Yield the items of an async iterator. An error is raised after the items before it."""

        async def emit_items(task: PortalTask[T, None]) -> None:
            items = function(*args, **kwargs)
            if not hasattr(items, "aclose"):
                async for item in items:
                    await task.emit(item)
                return
            async with aclosing(cast("AsyncGenerator[T, None]", items)):
                async for item in items:
                    await task.emit(item)

        task: PortalTask[T, None] = PortalTask(emit_items)
        try:
            self.start(task)
            while isinstance(event := task.receive(), Item):
                event.is_received = True
                yield event.value
            event.unwrap()
        except GeneratorExit:
            raise
        except BaseException as interrupt:
            task.cancel_and_wait()
            if items := task.pending_items():
                vars(interrupt)["outcome"] = items
            raise
        finally:
            task.cancel_and_wait()
            task.clear_items()

    def enter(
        self,
        wrap: Callable[[Portal, T], WrapperT],
        function: Callable[P, AbstractAsyncContextManager[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractContextManager[WrapperT]:
        """Return a blocking context manager that wraps an async one and the value it yields."""
        return _BlockingContextManager(self, wrap, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Stop the loop. Waiting and later calls raise `ClientClosedError`."""
        self._stop()

    @staticmethod
    def current() -> Portal | None:
        """Return the portal that runs the current coroutine, or ``None``."""
        portal = _current.get()
        return None if portal is None else portal()

    def start(self, task: PortalTask[Any, Any]) -> None:
        """Start a task on the loop of this process."""
        process = os.getpid()
        if process not in self._threads:
            # One lock per process: a lock that is held during a fork stays locked in the child.
            with self._locks.setdefault(process, Lock()):
                if process not in self._threads and self._stop.alive:
                    context = Context()
                    context.run(_current.set, weakref.ref(self))
                    thread = EventLoopThread(self._on_close, self._close_timeout, context)
                    thread.start()
                    self._threads[process] = thread
            if not self._stop.alive:
                _stop(self._threads)
                raise ClientClosedError("the client is closed")
        task.start(self._threads[process])


def _stop(threads: dict[int, EventLoopThread]) -> None:
    thread = threads.get(os.getpid())
    if thread is not None:
        thread.stop()


def _unchanged(portal: Portal, value: T) -> T:
    return value


class _Call(Generic[T, WrapperT]):
    """A call, and what becomes of a result that its thread cannot receive."""

    __slots__ = ("_function", "_is_handled", "_portal", "_value", "_wrap")

    def __init__(
        self,
        portal: Portal,
        wrap: Callable[[Portal, T], WrapperT],
        function: partial[Awaitable[T]],
    ) -> None:
        self._portal = portal
        self._wrap = wrap
        self._function = function
        self._is_handled = False
        self._value: T | None = None

    async def work(self, task: PortalTask[Any, WrapperT]) -> WrapperT:
        value = self._value = await self._function()
        if task.is_cancelled:  # the thread may have stopped waiting
            await self._handle_result(value)
        return self._wrap(self._portal, value)

    def recover(self, outcome: Outcome[WrapperT], interrupt: BaseException) -> None:
        """Keep, attach to the interrupt, or undo an outcome that arrived with an interrupt."""
        error, handler = outcome.error, abandoned_result_handler(self._function.func)
        is_redelivered = handler is not None and handler.is_redelivered
        if outcome.succeeded:
            if not is_redelivered:
                vars(interrupt)["outcome"] = outcome.value
            if handler is not None and not self._is_handled:
                self._portal.call(self._handle_result, self._value)
        elif (
            is_redelivered
            and isinstance(error, FalClientError)
            # Every later call raises these as well.
            and not isinstance(error, ClientClosedError | InvalidRequestError)
        ):
            self._portal.call(self._handle_result, error)

    async def _handle_result(self, value: object) -> None:
        handler = abandoned_result_handler(self._function.func)
        if handler is not None and not self._is_handled:
            self._is_handled = True
            await handler.handle(getattr(self._function.func, "__self__", None), value)


class _BlockingContextManager(AbstractContextManager[WrapperT], Generic[T, WrapperT]):
    """An async context manager whose body runs on another thread."""

    def __init__(
        self,
        portal: Portal,
        wrap: Callable[[Portal, T], WrapperT],
        function: Callable[[], AbstractAsyncContextManager[T]],
    ) -> None:
        self._portal = portal
        self._wrap = wrap
        self._function = function
        self._task: PortalTask[T, T] = PortalTask(self._run_context)
        self._body_error: Exception | None = None

    def __enter__(self) -> WrapperT:
        if self._task.was_started:
            raise InvalidRequestError("cannot enter a context manager twice; create another one")
        try:
            self._portal.start(self._task)
            event = self._task.receive()
            self._task.clear_items()
            value = event.value if isinstance(event, Item) else event.unwrap()
            return self._wrap(self._portal, value)
        except BaseException:
            self._task.cancel_and_wait()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not self._task.running:
            return False
        # Ctrl-C cancels the task, and so does an error that no coroutine can raise.
        if error is not None and (
            isinstance(error, StopIteration) or not isinstance(error, Exception)
        ):
            self._task.cancel_and_wait()
            return False
        body_trace = None if error is None else error.__traceback__
        self._body_error = error
        try:
            self._task.call_soon(self._body_ended.set)
            outcome = self._task.wait_finished()
        except BaseException:
            self._task.cancel_and_wait()
            raise
        if error is not None and outcome.error is error:
            error.__traceback__ = body_trace  # without the frames of the loop
            return False
        if isinstance(outcome.error, ClientClosedError):  # the context is closed, as requested
            return False
        outcome.unwrap()
        return error is not None  # the async manager suppressed it

    async def _run_context(self, task: PortalTask[T, T]) -> T:
        self._body_ended = anyio.Event()
        async with self._function() as value:
            await task.emit(value)
            await self._body_ended.wait()
            if self._body_error is not None:
                raise self._body_error
        return value
