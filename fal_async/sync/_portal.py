"""Blocking calls into async code, by way of one event loop in a thread of its own.

- ``call`` runs a coroutine and waits for its end.
- ``iterate`` runs an async iterator in one task, from start to close, some items ahead.
- ``enter`` runs an async context manager in one task, which waits inside the block for its body.

A thread that stops waiting (Ctrl-C, ``break``, an error in a block) abandons its errand: the task
is cancelled, and has `CANCEL_GRACE_PERIOD` seconds to clean up, such as to have the platform
cancel the job.

The outcome of a call that has arrived as the interrupt comes is not thrown away: the interrupt
carries it as its attribute ``outcome``, or the object that was called keeps it for the next call. A
job that was submitted is cancelled, as it is whenever a `submit` is interrupted. Of an iterator the
``outcome`` is a list of the items that had arrived and were not received.
"""

from __future__ import annotations

import os
import weakref
from contextlib import AbstractAsyncContextManager, AbstractContextManager, aclosing
from contextvars import ContextVar
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

import anyio

from fal_async._net.tasks import abandoned_result_handler
from fal_async.errors import ClientClosedError, FalClientError, InvalidRequestError
from fal_async.sync._loop_thread import EventLoopThread
from fal_async.sync._task import (
    CANCEL_GRACE_PERIOD,
    READ_AHEAD,
    Item,
    PortalTask,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
    from types import TracebackType

    from fal_async._net.tasks import AbandonedResultHandler
    from fal_async.sync._task import Outcome

__all__ = ["CANCEL_GRACE_PERIOD", "READ_AHEAD", "Portal"]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F")

_current: ContextVar[weakref.ref[Portal] | None] = ContextVar("fal_portal", default=None)


class Portal:
    """The way into a loop thread.

    Making one starts nothing. A forked process gets a thread and a loop of its own on first use.
    The loop ends with `close`, with the portal itself, or with the interpreter.

    Args:
        at_end: Run on the loop when it ends; ``None`` for nothing.
        patience: Gives how long that may take, in seconds; called on the loop.
    """

    def __init__(
        self,
        at_end: Callable[[], Awaitable[None]] | None = None,
        patience: Callable[[], float] = lambda: CANCEL_GRACE_PERIOD,
    ) -> None:
        self._at_end = at_end
        self._patience = patience
        self._threads: dict[int, EventLoopThread] = {}
        self._locks: dict[int, Lock] = {}
        self._stop = weakref.finalize(self, _stop, self._threads)

    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a coroutine function on the loop, and return or raise what it does."""
        work = partial(function, *args, **kwargs)
        return self._run(_Call(self, _as_it_is, work, abandoned_result_handler(function)))

    def bring(
        self,
        into: Callable[[Portal, T], F],
        function: Callable[P, Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> F:
        """Run a coroutine function on the loop, and return what is made there of its value."""
        work = partial(function, *args, **kwargs)
        return self._run(_Call(self, into, work, abandoned_result_handler(function)))

    def _run(self, call: _Call[T, F]) -> F:
        """Wait for a call.

        On the way from here to the user's code the value may only be returned. Python handles
        signals where something is called, which includes the return of a call with ``*args``, so no
        interrupt can come between.
        """
        errand: PortalTask[Any, F] = PortalTask(call.work)
        try:
            self.start(errand)
            outcome = errand.wait_finished()
        except BaseException as interrupt:
            ended = errand.cancel_and_wait()
            if ended is not None:
                call.dispose(ended, interrupt)
            errand.outcome = None
            raise
        errand.outcome = None
        if outcome.succeeded:
            return outcome.value
        return outcome.unwrap()

    def iterate(
        self, function: Callable[P, AsyncIterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[T, None, None]:
        """Iterate over what a function returns. An error comes after the items before it."""
        errand: PortalTask[T, None] = PortalTask(
            partial(_iterate_into, partial(function, *args, **kwargs))
        )
        try:
            self.start(errand)
            while isinstance(news := errand.receive(), Item):
                news.is_received = True
                yield news.value
            news.unwrap()
        except GeneratorExit:
            raise
        except BaseException as interrupt:
            errand.cancel_and_wait()
            if arrived := errand.unreceived():
                vars(interrupt)["outcome"] = arrived
            raise
        finally:
            errand.cancel_and_wait()
            errand.forget_items()

    def enter(
        self,
        wrap: Callable[[Portal, T], F],
        function: Callable[P, AbstractAsyncContextManager[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AbstractContextManager[F]:
        """The async context manager that a function returns, as a blocking one of its face."""
        return _BlockingContextManager(self, wrap, partial(function, *args, **kwargs))

    def close(self) -> None:
        """End the loop. Calls that wait, and later calls, raise `ClientClosedError`."""
        self._stop()

    @staticmethod
    def current() -> Portal | None:
        """The portal by which the running coroutine was called, if it was by one."""
        portal = _current.get()
        return None if portal is None else portal()

    def start(self, errand: PortalTask[Any, Any]) -> None:
        """Start an errand on the loop of this process."""
        thread = self._threads.get(os.getpid()) or self._start_thread()
        token = _current.set(weakref.ref(self))
        try:
            errand.start(thread)
        finally:
            _current.reset(token)

    def _start_thread(self) -> EventLoopThread:
        process = os.getpid()
        with self._locks.setdefault(process, Lock()):  # what is locked at a fork stays locked
            if process not in self._threads and self._stop.alive:
                thread = EventLoopThread(self._at_end, self._patience)
                thread.start()
                self._threads[process] = thread
        if not self._stop.alive:
            _stop(self._threads)
            raise ClientClosedError("the client is closed")
        return self._threads[process]


def _stop(threads: dict[int, EventLoopThread]) -> None:
    thread = threads.get(os.getpid())
    if thread is not None:
        thread.stop()


def _as_it_is(_: Portal, value: T) -> T:
    return value


class _Call(Generic[T, F]):
    """The work of a call, and what becomes of an outcome that its thread cannot receive."""

    def __init__(
        self,
        portal: Portal,
        into: Callable[[Portal, T], F],
        function: partial[Awaitable[T]],
        handler: AbandonedResultHandler | None,
    ) -> None:
        self._portal = portal
        self._into = into
        self._function = function
        self._handler = handler
        self._value: T | None = None

    async def work(self, errand: PortalTask[Any, F]) -> F:
        value = self._value = await self._function()
        if errand.is_abandoned:  # perhaps by a thread that waits no longer
            await self._dispose(value)
        return self._into(self._portal, value)

    def dispose(self, outcome: Outcome[F], interrupt: BaseException) -> None:
        """See to an outcome that came with an interrupt."""
        error, is_redelivered = (
            outcome.error,
            self._handler is not None and self._handler.is_redelivered,
        )
        if outcome.succeeded:
            if not is_redelivered:
                vars(interrupt)["outcome"] = outcome.value
            if self._handler is not None:
                self._portal.call(self._dispose, self._value)
        elif is_redelivered and isinstance(error, FalClientError) and not _is_closing(error):
            self._portal.call(self._dispose, error)

    async def _dispose(self, value: object) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            await handler.handle(getattr(self._function.func, "__self__", None), value)


def _is_closing(error: FalClientError) -> bool:
    """Whether it is told to every caller, and need not be kept for the next one."""
    return isinstance(error, ClientClosedError | InvalidRequestError)


async def _iterate_into(
    function: Callable[[], AsyncIterator[T]], errand: PortalTask[T, None]
) -> None:
    items = function()
    if not hasattr(items, "aclose"):
        async for item in items:
            await errand.emit(item)
        return
    async with aclosing(cast("AsyncGenerator[T, None]", items)):
        async for item in items:
            await errand.emit(item)


class _BlockingContextManager(AbstractContextManager[F], Generic[T, F]):
    """An async context manager whose body another thread runs."""

    def __init__(
        self,
        portal: Portal,
        wrap: Callable[[Portal, T], F],
        function: Callable[[], AbstractAsyncContextManager[T]],
    ) -> None:
        self._portal = portal
        self._face = wrap
        self._function = function
        self._job: PortalTask[T, T] = PortalTask(self._run_context)
        self._body_error: Exception | None = None

    def __enter__(self) -> F:
        if self._job.was_started:
            raise InvalidRequestError("a block can be entered once; open another one")
        try:
            self._portal.start(self._job)
            news = self._job.receive()
            self._job.forget_items()
            value = news.value if isinstance(news, Item) else news.unwrap()
            return self._face(self._portal, value)
        except BaseException:
            self._job.cancel_and_wait()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not self._job.running:
            return False
        # Ctrl-C is a cancellation there, and so is what no coroutine can raise.
        if error is not None and (
            isinstance(error, StopIteration) or not isinstance(error, Exception)
        ):
            self._job.cancel_and_wait()
            return False
        try:
            return self._exit_async(error)
        except BaseException:
            self._job.cancel_and_wait()
            raise

    def _exit_async(self, error: Exception | None) -> bool:
        """Leave the async manager with the error of the body; whether the manager swallowed it."""
        trace = None if error is None else error.__traceback__
        self._body_error = error
        self._job.call_soon(self._left.set)
        outcome = self._job.wait_finished()
        if error is not None and outcome.error is error:
            error.__traceback__ = trace  # without its way through the loop
            return False
        if isinstance(outcome.error, ClientClosedError):  # the block is left as it should be
            return False
        outcome.unwrap()
        return error is not None

    async def _run_context(self, errand: PortalTask[T, T]) -> T:
        self._left = anyio.Event()
        async with self._function() as value:
            await errand.emit(value)
            await self._left.wait()
            if self._body_error is not None:
                raise self._body_error
        return value
