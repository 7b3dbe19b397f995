"""A thread that runs an event loop, for the errands of other threads.

Errands are handed over through the loop that anyio's token names. Anyio's own portal starts a task
with one round trip between the threads, and waits for its result with a second one.
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
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio
from anyio.lowlevel import current_token

from fal_async.errors import ClientClosedError, InvalidRequestError
from fal_async.sync._task import CANCEL_GRACE_PERIOD, LOOK_UP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from fal_async.sync._task import PortalTask

__all__ = ["EventLoopThread"]

import_module("concurrent.futures.thread")  # uvloop needs it, and it cannot load at the end


class _NativeLoop(Protocol):
    """What is used of an asyncio loop."""

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: object) -> object: ...

    def create_task(
        self, work: Coroutine[Any, Any, None], /, *, context: Context
    ) -> Awaitable[None]: ...


class EventLoopThread:
    """A daemon thread with an event loop, uvloop where it is installed.

    Args:
        at_end: Run on the loop when it ends; ``None`` for nothing.
        patience: Gives how long that may take, in seconds.
    """

    def __init__(
        self,
        at_end: Callable[[], Awaitable[None]] | None,
        patience: Callable[[], float] = lambda: CANCEL_GRACE_PERIOD,
    ) -> None:
        self._process = os.getpid()
        self._on_stop = at_end
        self._patience = patience
        self._ends_by = -math.inf
        self._thread = threading.Thread(target=self._run, name="fal-portal", daemon=True)
        self._ready = threading.Event()
        self._loop: _NativeLoop | None = None
        self._errands: dict[PortalTask[Any, Any], Awaitable[None] | None] = {}
        self._failure: BaseException | None = None
        self._stopping = False

    @property
    def in_this_process(self) -> bool:
        """Whether the thread lives in this process, rather than in the one it was forked from."""
        return self._process == os.getpid()

    @property
    def is_current(self) -> bool:
        """Whether the caller is on this thread."""
        return self._thread is threading.current_thread()

    def start(self) -> None:
        """Start the thread, and wait until its loop runs; or raise what keeps it from running."""
        try:
            self._thread.start()
            self._ready.wait()
        except RuntimeError as error:  # since Python 3.12, for all that runs at its end
            raise ClientClosedError(f"no event loop can be started any more: {error}") from error
        except BaseException:  # interrupted: a loop that nobody knows of is not to run
            self._on_stop, self._stopping = None, True
            self.soon(self._stop)
            raise
        if self._failure is not None:
            raise self._failure

    def check(self) -> None:
        """Raise an error if the caller cannot have errands done.

        Raises:
            InvalidRequestError: The caller is on the loop's own thread.
            ClientClosedError: The loop was stopped.
        """
        if self.is_current:
            raise InvalidRequestError(
                "a blocking call was made from async code on the client's own event loop, which "
                "would stop for ever; await the async client there"
            )
        if self._stopping or self._loop is None:
            raise ClientClosedError("the client is closed")

    def start_task(self, errand: PortalTask[Any, Any]) -> None:
        """Start an errand, which will be ended whatever happens."""
        self._errands[errand] = None
        if not self.soon(partial(self._spawn, errand, copy_context())):
            errand.end(None)

    def soon(self, callback: Callable[[], object]) -> bool:
        """Call a function on the loop; false when the loop has ended."""
        if self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def stop(self) -> None:
        """Cancel the errands, end the loop, and wait for that unless it is the loop that asks."""
        self._stopping = True
        self.soon(self._stop)
        if not self.is_current:
            self._thread.join(2 * CANCEL_GRACE_PERIOD)
            while self._thread.is_alive() and monotonic() < self._ends_by:
                self._thread.join(LOOK_UP)

    # On the loop's thread

    def cancel(self, errand: PortalTask[Any, Any]) -> None:
        """Cancel an errand, or end it if it was interrupted before it got here."""
        if self._errands.get(errand) is None:
            errand.end(None)
        else:
            errand.cancel()

    def remove(self, errand: PortalTask[Any, Any]) -> None:
        self._errands.pop(errand, None)
        if self._stopping and not self._errands:
            self.soon(self._idle.set)

    def _run(self) -> None:
        options = {"use_uvloop": find_spec("uvloop") is not None}
        try:
            # an empty context, which Python 3.14 may not give: the starter may run another loop
            Context().run(
                partial(anyio.run, self._serve, backend="asyncio", backend_options=options)
            )
        except BaseException as error:
            if self._ready.is_set():
                raise
            self._failure = error
        finally:
            self._ready.set()
            for errand in list(self._errands):
                errand.end(None)

    async def _serve(self) -> None:
        self._idle = anyio.Event()
        self._stopped = anyio.Event()
        self._own_variables = list(copy_context().items())
        self._loop = cast("_NativeLoop", current_token().native_token)
        self._ready.set()
        if self._stopping:
            return
        await self._stopped.wait()
        if self._errands:
            with anyio.move_on_after(CANCEL_GRACE_PERIOD):
                await self._idle.wait()
        if self._on_stop is not None:
            patience = self._patience()
            self._ends_by = monotonic() + patience + CANCEL_GRACE_PERIOD
            with anyio.move_on_after(patience):
                await self._on_stop()

    def _spawn(self, errand: PortalTask[Any, Any], context: Context) -> None:
        if self._stopping:
            errand.cancel()
        for variable, value in self._own_variables:  # which event loop runs is not the caller's say
            context.run(variable.set, value)
        if self._loop is not None:
            self._errands[errand] = self._loop.create_task(errand.run(), context=context)

    def _stop(self) -> None:
        for errand in list(self._errands):
            errand.cancel()
        self._stopped.set()
