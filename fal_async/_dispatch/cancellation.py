"""`JobCanceller`: the cancellation of jobs whose callers were cancelled or whose client closes.

A cancelled caller waits for `JobCanceller.patience` until its job is cancelled, too. A background
task sends the request, so that the request survives another cancellation of the caller. It has
slots of its own and does not wait for other calls.
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
from fal_async._net.tasks import CLEANUP, run_to_completion
from fal_async.errors import ClientClosedError, FalClientHTTPError, TransportError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextvars import Context

    from fal_async._net.background import BackgroundTask

__all__ = ["JobCanceller", "PendingCancel", "Subscriber"]

T = TypeVar("T")
_log = logging.getLogger("fal_async")

#: How many cancellations a second are expected of the platform at least.
RATE: Final = 100
#: How long one cancellation may take, in seconds, while the client is open.
TIMEOUT: Final = 30.0
#: The delays before a cancellation that failed on this side is tried again, in seconds.
DELAYS: Final = (0.25, 1.0, 4.0)
#: Turns of the event loop that whoever closed a client is ahead of the calls that waited for jobs.
#: After these, ``asyncio.run`` has cancelled their tasks where the client was closed at its end,
#: and nobody is told of an error that was never retrieved.
TURNS: Final = 5


class Subscriber(Protocol):
    """A call that waits for a job."""

    @property
    def request_id(self) -> str | None:
        """The job's id; ``None`` until it has been submitted."""
        ...

    def close(self) -> None:
        """End the wait, since the client is closing."""
        ...


class PendingCancel:
    """One job to cancel.

    Attributes:
        request_id: The job.
        failure: The reason why the job could not be cancelled; ``None`` in the end if it was.
        task: Sends the request.
    """

    __slots__ = ("failure", "request_id", "task")

    task: BackgroundTask

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.failure: str | None = "there was no time"


class JobCanceller:
    """What one client has to cancel on one event loop.

    Args:
        limit: How many cancellations are sent at once.

    Attributes:
        closing: Closes the client, once that has begun; ``None`` before.
    """

    def __init__(self, limit: int) -> None:
        self.closing: BackgroundTask | None = None
        self._slots = anyio.Semaphore(limit, fast_acquire=True)
        state = _State()
        self._subscribers, self._submissions = state.subscribers, state.submissions
        self._jobs = state.jobs
        self._failed: list[PendingCancel] = []
        self._changed: anyio.Event | None = None
        _states.add(state)
        weakref.finalize(self, state.report).atexit = False

    @property
    def idle(self) -> bool:
        """Whether nothing is to be cancelled, and nobody waits for a job."""
        return not (self._jobs or self._subscribers or self._submissions)

    def patience(self) -> float:
        """How long to wait for all cancellations, in seconds."""
        jobs = len(self._jobs) + len(self._subscribers) + len(self._submissions)
        return CLEANUP + jobs / RATE

    def join(self, subscriber: Subscriber) -> None:
        """Note a call that waits for a job, to end it when the client closes."""
        self._subscribers[subscriber] = None

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a call that waited for a job."""
        del self._subscribers[subscriber]
        self._notify()

    def add(
        self,
        request_id: str,
        send: Callable[[], Awaitable[object]],
        *,
        context: Context | None = None,
    ) -> PendingCancel:
        """Cancel a job in the background.

        Args:
            request_id: The job.
            send: Sends the request to cancel it; may be called repeatedly.
            context: The context variables of whoever started the job, which key providers may want
                to see; ``None`` copies those of the caller.
        """
        cancel = self._jobs.get(request_id)
        if cancel is None:
            cancel = PendingCancel(request_id)
            cancel.task = spawn(self._cancel, cancel, send, grace=self.patience, context=context)
            self._jobs[request_id] = cancel
        return cancel

    async def wait(self, cancel: PendingCancel) -> bool:
        """Wait for a cancellation even if the caller is cancelled; whether it is done by then."""
        with anyio.move_on_after(self.patience(), shield=True):
            await cancel.task.wait()
            return cancel.failure is None
        return False

    async def closed(self) -> None:
        """Wait until the client has been closed, if that has begun, and its closer went on."""
        if self.closing is not None:
            await self.closing.wait()
            for _ in range(TURNS):
                await checkpoint()

    def lose(self, request_id: str, send: Callable[[], Awaitable[object]]) -> None:
        """Cancel a job whose caller was destroyed, or report it where its loop was closed."""
        try:
            self.add(request_id, send)
        except RuntimeError:
            _report([request_id], "its event loop has ended")

    async def complete_submit(
        self, work: Callable[[], Awaitable[T]], abandoned: Callable[[T], Awaitable[None]]
    ) -> T:
        """Start a job in the background; its handle must not be lost if the caller is cancelled.

        Args:
            work: Starts the job.
            abandoned: Called with what the work returned when the caller has left.

        Raises:
            ClientClosedError: The client was closed before the platform had responded.
        """

        async def submit() -> T:
            with anyio.CancelScope() as scope:
                self._submissions.add(scope)
                try:
                    return await work()
                finally:
                    self._submissions.discard(scope)
                    self._notify()
            raise ClientClosedError("the client was closed before the platform had responded")

        return await run_to_completion(submit, patience=self.patience, abandoned=abandoned)

    async def finish(self) -> None:
        """End the calls that wait for jobs, and cancel what is to be cancelled, within a bound."""
        for subscriber in list(self._subscribers):
            subscriber.close()
        with anyio.move_on_after(self.patience()):
            while not self.idle:
                self._changed = anyio.Event()
                await self._changed.wait()
            return
        for submission in self._submissions:
            submission.cancel()
        for cancel in list(self._jobs.values()):
            cancel.task.cancel()
        while self._submissions or self._jobs:
            self._changed = anyio.Event()
            await self._changed.wait()

    async def _cancel(self, cancel: PendingCancel, send: Callable[[], Awaitable[object]]) -> None:
        try:
            async with self._slots:
                cancel.failure = f"no response within {TIMEOUT:g} s"
                with anyio.move_on_after(TIMEOUT), use_call_state(None):
                    cancel.failure = await _attempts(send)
        finally:
            del self._jobs[cancel.request_id]
            if cancel.failure is not None:
                self._failed.append(cancel)
            if not self._jobs:
                self._report_failed()
            self._notify()

    def _report_failed(self) -> None:
        failed, self._failed = self._failed, []
        if failed:
            _report([cancel.request_id for cancel in failed], failed[-1].failure)

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()


async def _attempts(send: Callable[[], Awaitable[object]]) -> str | None:
    """Send a cancellation; the reason why that failed, or ``None``.

    What the platform says stands, and the network has been tried again already. A failing key
    provider gets further chances.
    """
    for delay in (*DELAYS, None):
        try:
            await send()
        except (FalClientHTTPError, TransportError, ClientClosedError) as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is looked at
            if delay is None:
                return f"{type(error).__name__}: {error}"
            await anyio.sleep(delay)
        else:
            return None
    raise AssertionError("the last attempt returns")


def _report(request_ids: Iterable[str], reason: str | None, unanswered: int = 0) -> None:
    """Log one warning about all jobs that may be running, and submissions without a response."""
    ids = list(request_ids)
    facts: list[str] = []
    if ids:
        jobs = "1 job" if len(ids) == 1 else f"{len(ids)} jobs"
        facts.append(f"{jobs} could not be cancelled and may be running: {', '.join(ids)}")
    if unanswered:
        facts.append(f"{unanswered} submitted without a response, and may be running")
    if facts:
        _log.warning("%s (%s)", "; ".join(facts), reason)


class _State:
    """What a client has under way on one event loop."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.subscribers: dict[Subscriber, None] = {}
        self.submissions: set[anyio.CancelScope] = set()
        self.jobs: dict[str, PendingCancel] = {}

    def report(self) -> None:
        """Report jobs whose loop was closed, or whose program ended, before they were cancelled."""
        if self.process == os.getpid():
            waited_for = (each.request_id for each in list(self.subscribers))
            ids = dict.fromkeys([*self.jobs, *(each for each in waited_for if each is not None)])
            _report(ids, "their event loop has ended", len(self.submissions))


_states: weakref.WeakSet[_State] = weakref.WeakSet()


def _report_at_exit() -> None:
    for state in list(_states):
        state.report()


# Finalizers run in reverse order when a program ends: this one after those of the blocking clients,
# which end their event loops.
weakref.finalize(JobCanceller, _report_at_exit)
