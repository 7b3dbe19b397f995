"""`JobCanceller`: the cancellation of jobs whose callers were cancelled or whose client closes.

A background task cancels each job, so that the request survives another cancellation of the caller.
A cancelled caller waits for it, but no longer than `JobCanceller.grace_period`. Cancellations have
slots of their own and do not wait for other calls.
"""

from __future__ import annotations

import logging
import os
import weakref
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from fal_async._dispatch.call_state import use_call_state
from fal_async._net.background import spawn
from fal_async._net.tasks import CLEANUP_TIMEOUT, run_to_completion
from fal_async.errors import ClientClosedError, FalClientHTTPError, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextvars import Context

    from fal_async._net.background import BackgroundTask

__all__ = ["JobCanceller", "PendingCancel", "Subscription"]

T = TypeVar("T")
_log = logging.getLogger("fal_async")

#: The number of cancellations per second that the platform handles at least.
RATE: Final = 100
#: The timeout of one cancellation while the client is open, in seconds.
TIMEOUT: Final = 30.0
#: The delays before the retries of a cancellation that failed on this side, in seconds.
DELAYS: Final = (0.25, 1.0, 4.0)
#: The event loop iterations by which the closer of a client precedes the subscriptions it ended.
#: By then ``asyncio.run`` has cancelled the tasks of a client that was closed at the end of the
#: program, and asyncio does not report their errors as never retrieved.
ITERATIONS: Final = 5


class Subscription(Protocol):
    """A call that waits for a job."""

    @property
    def request_id(self) -> str | None:
        """The job's id; ``None`` before the job was submitted."""
        ...

    def close(self) -> None:
        """End the call, because the client is closing."""
        ...


class PendingCancel:
    """The cancellation of one job.

    Attributes:
        request_id: The job's id.
        failure: The reason why the job is not cancelled; ``None`` once it is.
        task: The task that sends the request.
    """

    __slots__ = ("failure", "request_id", "task")

    task: BackgroundTask

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.failure: str | None = "there was no time"


class JobCanceller:
    """Cancels the jobs of one client on one event loop.

    Args:
        limit: The number of concurrent cancellations.

    Attributes:
        closing: The task that closes the client; ``None`` while the client is open.
    """

    def __init__(self, limit: int) -> None:
        self.closing: BackgroundTask | None = None
        self._slots = anyio.Semaphore(limit, fast_acquire=True)
        self._open = open_work = _OpenWork()
        self._failed: list[PendingCancel] = []
        self._changed: anyio.Event | None = None
        _all_open_work.add(open_work)
        weakref.finalize(self, open_work.report).atexit = False

    @property
    def idle(self) -> bool:
        """True if there are neither subscriptions nor submissions nor cancellations."""
        return not self._open.count

    def grace_period(self) -> float:
        """Return the longest time to wait for all cancellations, in seconds."""
        return CLEANUP_TIMEOUT + self._open.count / RATE

    def add(self, subscription: Subscription) -> None:
        """Add a subscription, which ends when the client closes."""
        self._open.subscriptions[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription that has ended, if it was not removed before."""
        self._open.subscriptions.pop(subscription, None)
        self._notify()

    def cancel(
        self,
        request_id: str,
        send: Callable[[], Awaitable[object]],
        *,
        context: Context | None = None,
    ) -> PendingCancel:
        """Cancel a job in the background.

        Args:
            request_id: The job's id.
            send: Sends the request that cancels the job; called again for retries.
            context: The context variables of the call that started the job, for key providers;
                ``None`` copies those of the caller.
        """
        pending = self._open.cancels.get(request_id)
        if pending is None:
            pending = PendingCancel(request_id)
            pending.task = spawn(
                self._cancel, pending, send, grace_period=self.grace_period, context=context
            )
            self._open.cancels[request_id] = pending
        return pending

    def cancel_detached(self, request_id: str, send: Callable[[], Awaitable[object]]) -> None:
        """Cancel the job of a coroutine that was destroyed, or log it if its loop is closed."""
        try:
            self.cancel(request_id, send)
        except RuntimeError:
            _report([request_id], "its event loop has ended")

    async def wait(self, pending: PendingCancel) -> bool:
        """Wait for a cancellation, even in a cancelled task; return whether it succeeded."""
        with anyio.move_on_after(self.grace_period(), shield=True):
            await pending.task.wait()
            return pending.failure is None
        return False

    async def wait_closed(self) -> None:
        """Wait until the client is closed and its closer has continued, if it is closing."""
        if self.closing is not None:
            await self.closing.wait()
            for _ in range(ITERATIONS):
                await checkpoint()

    async def complete_submit(
        self, submit: Callable[[], Awaitable[T]], on_abandoned: Callable[[T], Awaitable[None]]
    ) -> T:
        """Submit a job in the background, so that a cancelled caller does not lose its id.

        Args:
            submit: Submits the job.
            on_abandoned: Called with the outcome if the caller was cancelled before.

        Raises:
            ClientClosedError: The client was closed before the platform responded.
        """

        async def work(task: BackgroundTask) -> T:
            self._open.submissions.add(task)
            try:
                return await submit()
            finally:
                self._open.submissions.discard(task)
                self._notify()

        return await run_to_completion(
            work, grace_period=self.grace_period, on_abandoned=on_abandoned
        )

    async def finish(self) -> None:
        """End all subscriptions, cancel their jobs, and wait for the grace period at most."""
        for subscription in list(self._open.subscriptions):
            subscription.close()
        with anyio.move_on_after(self.grace_period()):
            while not self.idle:
                await self._wait_for_change()
            return
        for submission in self._open.submissions:
            submission.cancel()
        for pending in list(self._open.cancels.values()):
            pending.task.cancel()
        while self._open.submissions or self._open.cancels:
            await self._wait_for_change()

    async def _cancel(self, pending: PendingCancel, send: Callable[[], Awaitable[object]]) -> None:
        try:
            async with self._slots:
                pending.failure = f"no response within {TIMEOUT:g} s"
                with anyio.move_on_after(TIMEOUT), use_call_state(None):
                    pending.failure = await _send_with_retries(send)
        finally:
            del self._open.cancels[pending.request_id]
            if pending.failure is not None:
                self._failed.append(pending)
            if self._failed and not self._open.cancels:
                failed, self._failed = self._failed, []
                _report([each.request_id for each in failed], failed[-1].failure)
            self._notify()

    async def _wait_for_change(self) -> None:
        self._changed = anyio.Event()
        await self._changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()


async def _send_with_retries(send: Callable[[], Awaitable[object]]) -> str | None:
    """Send a cancellation; return the reason of its failure, or ``None``.

    The response of the platform is final, and the dispatcher has retried failures of the network
    already. Other failures, such as those of a key provider, are retried here.
    """
    for delay in (*DELAYS, None):
        try:
            await send()
        except (FalClientHTTPError, TransportError, ClientClosedError) as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 -- key providers may raise anything; it is logged
            if delay is None:
                return f"{type(error).__name__}: {error}"
            await anyio.sleep(delay)
        else:
            return None
    raise AssertionError("the last attempt returns")


def _report(request_ids: Iterable[str], reason: str | None, submissions: int = 0) -> None:
    """Log one warning about all jobs that may still run, and submissions without a response."""
    ids = list(request_ids)
    problems: list[str] = []
    if ids:
        jobs = "1 job" if len(ids) == 1 else f"{len(ids)} jobs"
        problems.append(f"{jobs} could not be cancelled and may be running: {', '.join(ids)}")
    if submissions:
        problems.append(f"{submissions} submitted without a response, and may be running")
    if problems:
        _log.warning("%s (%s)", "; ".join(problems), reason)


class _OpenWork:
    """The unfinished work of a client on one event loop. It outlives its `JobCanceller`."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.subscriptions: dict[Subscription, None] = {}
        self.submissions: set[BackgroundTask] = set()
        self.cancels: dict[str, PendingCancel] = {}

    @property
    def count(self) -> int:
        return len(self.cancels) + len(self.subscriptions) + len(self.submissions)

    def report(self) -> None:
        """Log the jobs that were not cancelled before their event loop or program ended."""
        if self.process == os.getpid():
            subscribed = (each.request_id for each in list(self.subscriptions))
            ids = dict.fromkeys([*self.cancels, *(each for each in subscribed if each is not None)])
            _report(ids, "their event loop has ended", len(self.submissions))


_all_open_work: weakref.WeakSet[_OpenWork] = weakref.WeakSet()


def _report_at_exit() -> None:
    for open_work in list(_all_open_work):
        open_work.report()


# Finalizers run in reverse order at exit. Blocking clients register theirs later, so their event
# loops have ended before this one runs.
weakref.finalize(JobCanceller, _report_at_exit)
